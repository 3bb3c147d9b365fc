"""Predictions for labeled images, as arrays."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cls_data import Predictions
from cls_export.contract.calibration import log_softmax
from cls_report.statistics.intervals import Booleans, Clusters, Floats, Integers


@dataclass(frozen=True)
class EvaluatedPredictions:
    """Predicted classes and probabilities for N labeled images of C classes.

    Attributes:
        labels: int64 [N], the true classes.
        predicted: int64 [N], the predicted classes.
        log_probabilities: float64 [N, C].
        classes: C names.
        clusters: Which images belong together.
    """

    labels: Integers
    predicted: Integers
    log_probabilities: Floats
    classes: tuple[str, ...]
    clusters: Clusters

    @classmethod
    def from_predictions(
        cls, predictions: Predictions, probabilities: Floats | None = None
    ) -> "EvaluatedPredictions":
        """Convert predictions.

        Probabilities are float64 [N, C]; the default is the softmax of the logits. In either case,
        the predicted class is the one with the largest logit.
        """
        if probabilities is None:
            log_probabilities = log_softmax(predictions.logits)
        else:
            log_probabilities = np.log(np.maximum(probabilities, 1e-300))

        return cls(
            labels=predictions.labels.astype(np.int64),
            predicted=predictions.logits.argmax(axis=1).astype(np.int64),
            log_probabilities=log_probabilities,
            classes=tuple(map(str, predictions.classes)),
            clusters=Clusters.from_groups(predictions.groups),
        )

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def correct(self) -> Booleans:
        """Whether each prediction is correct: bool [N]."""
        correct: Booleans = self.predicted == self.labels
        return correct

    @cached_property
    def confidence(self) -> Floats:
        """Probability of each predicted class: float64 [N]."""
        log_confidence = self._pick(self.predicted)
        return np.exp(log_confidence)

    @cached_property
    def losses(self) -> Floats:
        """Negative log-likelihood of each label, in nats: float64 [N]."""
        return -self._pick(self.labels)

    def _pick(self, classes: Integers) -> Floats:
        """Return the log probability of one class per image."""
        rows = np.arange(len(self))
        picked: Floats = self.log_probabilities[rows, classes]
        return picked

    def in_top_k(self, k: int) -> Booleans:
        """Return whether each label is among the k most probable classes: bool [N].

        Of two classes with equal probability, the one with the lower index ranks higher.
        """
        log_probabilities = self.log_probabilities
        label_log_probability = -self.losses[:, None]
        is_above = log_probabilities > label_log_probability
        is_tied = log_probabilities == label_log_probability
        indices = np.arange(len(self.classes))
        labels = self.labels[:, None]
        has_lower_index = indices < labels
        ranks_higher = is_above | (is_tied & has_lower_index)
        rank = ranks_higher.sum(axis=1)
        return np.asarray(rank < k)

    def subset(self, rows: Booleans) -> "EvaluatedPredictions":
        """Return the predictions for the selected images."""
        return EvaluatedPredictions(
            labels=self.labels[rows],
            predicted=self.predicted[rows],
            log_probabilities=self.log_probabilities[rows],
            classes=self.classes,
            clusters=self.clusters.subset(rows),
        )
