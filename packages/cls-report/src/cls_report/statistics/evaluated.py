"""Predictions, ready to be counted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cls_data import Predictions
from cls_export.contract.calibration import log_softmax
from cls_report.statistics.intervals import Clusters, Floats, Integers


@dataclass(frozen=True, slots=True)
class Answers:
    """What a network answered for N images of C classes.

    Attributes:
        truth: int64 [N].
        answer: int64 [N].
        log_probabilities: float64 [N, C].
        classes: C names.
        clusters: which images belong together.
    """

    truth: Integers
    answer: Integers
    log_probabilities: Floats
    classes: tuple[str, ...]
    clusters: Clusters

    @classmethod
    def of(cls, predictions: Predictions, probabilities: Floats | None = None) -> "Answers":
        """Take the softmax of the logits, or probabilities [N, C] that are given, for confidence."""
        logits = predictions.logits
        logs = (
            log_softmax(logits)
            if probabilities is None
            else np.log(np.maximum(probabilities, 1e-300))
        )
        return cls(
            predictions.labels.astype(np.int64),
            logits.argmax(axis=1).astype(np.int64),
            logs,
            tuple(map(str, predictions.classes)),
            Clusters.from_groups(predictions.groups),
        )

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is."""
        return np.asarray(self.answer == self.truth)

    @property
    def confidence(self) -> Floats:
        """Of each answer, 0 to 1."""
        return np.exp(self.log_probabilities[np.arange(len(self.answer)), self.answer])

    def take(self, rows: NDArray[np.bool_]) -> "Answers":
        """Return those of some images."""
        return Answers(
            self.truth[rows],
            self.answer[rows],
            self.log_probabilities[rows],
            self.classes,
            self.clusters.take(rows),
        )


def in_top(answers: Answers, k: int) -> NDArray[np.bool_]:
    """Say whether the truth [N] is among the k likeliest classes; a tie counts for the class of the lower index."""
    rows = np.arange(len(answers.truth))
    own = answers.log_probabilities[rows, answers.truth][:, None]
    before = np.arange(len(answers.classes))[None] < answers.truth[:, None]
    ahead = (answers.log_probabilities > own) | ((answers.log_probabilities == own) & before)
    return np.asarray(ahead.sum(axis=1) < k)
