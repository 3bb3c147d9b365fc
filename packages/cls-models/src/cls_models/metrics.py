"""Metrics of an evaluation."""

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassStatScores,
)

CLASS_ACCURACY = "class_accuracy"


def build_classification_metrics(num_classes: int) -> MetricCollection:
    """Return a collection that is updated with logits float [B, C] and labels int64 [B].

    It computes top1, top5, and macro_f1 (scalars, 0-1), and class_accuracy (float [C], 0 for a
    class without samples). With fewer than 5 classes, top5 considers all of them.
    """
    return MetricCollection(
        {
            "top1": MulticlassAccuracy(num_classes, average="micro"),
            "top5": _Accuracy(num_classes, average="micro", top_k=min(5, num_classes)),
            "macro_f1": _F1Score(num_classes, average="macro"),
            CLASS_ACCURACY: _Accuracy(num_classes, average="none"),
        },
        # Metrics with equal states. torchmetrics would detect groups from the first batch, and put
        # top5 into the last one if its counts happen to be equal, as in a batch without errors.
        compute_groups=[["top1"], ["top5"], ["macro_f1", CLASS_ACCURACY]],
    )


class _CountsByClass(MulticlassStatScores):
    """Counts in memory proportional to classes.

    torchmetrics 1.9 counts a confusion matrix for every batch, which takes 0.8 GB and 0.8 s for
    10,000 classes, and one-hot matrices for top-k. The counts are the same.
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count the predictions of logits float [B, C] for labels int64 [B]."""
        if self.top_k == 1:
            predicted = preds.argmax(dim=1)
        else:
            candidates = preds.topk(self.top_k, dim=1).indices
            is_hit = (candidates == target[:, None]).any(dim=1)
            predicted = torch.where(is_hit, target, candidates[:, 0])

        ones = torch.ones_like(target)
        zeros = target.new_zeros(preds.shape[1])
        labeled = zeros.index_add(0, target, ones)
        answered = zeros.index_add(0, predicted, ones)
        correct = zeros.index_add(0, target, (predicted == target).long())
        false_positive = answered - correct
        false_negative = labeled - correct
        true_negative = len(target) - correct - false_positive - false_negative
        self._update_state(correct, false_positive, true_negative, false_negative)


class _Accuracy(_CountsByClass, MulticlassAccuracy):
    """Accuracy."""


class _F1Score(_CountsByClass, MulticlassF1Score):
    """F1 score."""
