"""Metrics of a classifier, all through torchmetrics: update, compute, reset."""

from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

CLASS_ACCURACY = "class_accuracy"

VALIDATION_METRICS = ("valid_loss", "valid_top1", "valid_top5", "valid_macro_f1")
"""What a ClassificationModule logs of every validation, and so what a run can choose its best weights by."""


def classification_metrics(num_classes: int) -> MetricCollection:
    """Return top1, top5, macro_f1 (all 0-1, scalar) and class_accuracy (float [C], 0 for a class without samples).

    They are updated with logits float [B, C] and labels int64 [B]. With fewer than 5 classes, top5 looks at all.
    """
    return MetricCollection(
        {
            "top1": MulticlassAccuracy(num_classes, average="micro"),
            "top5": MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes)),
            "macro_f1": MulticlassF1Score(num_classes, average="macro"),
            CLASS_ACCURACY: MulticlassAccuracy(num_classes, average="none"),
        },
        # Those that count the same. Found out from the first batch, top5 would join the last two wherever it happens to
        # count as they do, such as where every image of the batch is right, and stay with them.
        compute_groups=[["top1"], ["top5"], ["macro_f1", CLASS_ACCURACY]],
    )


def state_of(metric: Metric) -> dict[str, Tensor]:
    """Return what a metric has gathered since its reset, on the CPU: all its states, each one tensor."""
    return {
        name: value.detach().cpu()
        for name, value in metric.metric_state.items()
        if isinstance(value, Tensor)
    }


def restore_state(metric: Metric, state: dict[str, Tensor]) -> None:
    """Let a metric go on from what `state_of` returned."""
    for name, value in state.items():
        setattr(metric, name, value.to(metric.device))
