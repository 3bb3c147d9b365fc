"""Classification metrics."""

from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from cls_models.rank_reduction import sum_over_ranks

CLASS_ACCURACY = "class_accuracy"


def build_classification_metrics(num_classes: int) -> MetricCollection:
    """Return a collection that is updated with logits float [B, C] and labels int64 [B].

    It computes top1, top5, and macro_f1 (scalars, 0-1), and class_accuracy (float [C], 0 for a
    class without samples). With fewer than 5 classes, top5 considers all of them.
    """
    return MetricCollection(
        {
            "top1": MulticlassAccuracy(num_classes, average="micro"),
            "top5": MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes)),
            "macro_f1": MulticlassF1Score(num_classes, average="macro"),
            CLASS_ACCURACY: MulticlassAccuracy(num_classes, average="none"),
        },
        # Metrics with equal states. torchmetrics would detect groups from the first batch, and put
        # top5 into the last one if its counts happen to be equal, as in a batch without errors.
        compute_groups=[["top1"], ["top5"], ["macro_f1", CLASS_ACCURACY]],
    )


def get_metric_state(metric: Metric) -> dict[str, Tensor]:
    """Return the state of a metric over all ranks, on the CPU; all its states must be sums."""
    state = {}
    for name, value in metric.metric_state.items():
        assert isinstance(value, Tensor)
        total = sum_over_ranks(value.detach())
        state[name] = total.cpu()
    return state


def restore_metric_state(metric: Metric, state: dict[str, Tensor], *, is_first: bool) -> None:
    """Set the state of a metric to the result of `get_metric_state` on the first rank.

    The other ranks keep the state of a new metric, so that the sum over all ranks is the saved one.
    """
    if not is_first:
        return
    for name, value in state.items():
        on_device = value.to(metric.device)
        setattr(metric, name, on_device)
