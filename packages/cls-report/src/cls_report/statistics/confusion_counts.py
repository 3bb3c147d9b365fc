"""Images, answers and right answers by class, of many samples at once, and the macro means that follow."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from cls_report.statistics.evaluated import Answers
from cls_report.statistics.intervals import Floats


def macro_f1(answers: Answers, weights: Floats) -> Floats:
    """Return the macro-F1 [rounds] of weighted images, weights [rounds, N]."""
    return Counts.of(answers).weighted(weights).macro("f1")


@dataclass(frozen=True, slots=True)
class Weighted:
    """By class and sample: images, answers, and right answers, each float64 [C, rounds]."""

    support: Floats
    answered: Floats
    right: Floats

    @property
    def precision(self) -> Floats:
        """Right answers of a class's answers; 0 for a class that is never answered."""
        return divide(self.right, self.answered)

    @property
    def recall(self) -> Floats:
        """Right answers of a class's images; 0 for a class without images."""
        return divide(self.right, self.support)

    @property
    def f1(self) -> Floats:
        """The harmonic mean of both."""
        return divide(2 * self.right, self.support + self.answered)

    def macro(self, name: str) -> Floats:
        """Return the mean [rounds] over the classes that occur."""
        occurs = self.support + self.answered > 0
        values: Floats = getattr(self, name)
        return divide((values * occurs).sum(axis=0), occurs.sum(axis=0).astype(np.float64))


@dataclass(frozen=True, slots=True)
class Counts:
    """Which images count for which class: sparse [C, N], by truth, by answer, and by answer where it is right."""

    truth: sparse.csr_array
    answer: sparse.csr_array
    right: sparse.csr_array

    @classmethod
    def of(cls, answers: Answers) -> "Counts":
        """Note where each image counts."""
        images, shape = np.arange(len(answers.truth)), (len(answers.classes), len(answers.truth))
        ones = np.ones(len(images))
        return cls(
            sparse.csr_array((ones, (answers.truth, images)), shape),
            sparse.csr_array((ones, (answers.answer, images)), shape),
            sparse.csr_array((answers.right.astype(np.float64), (answers.answer, images)), shape),
        )

    def weighted(self, weights: Floats) -> Weighted:
        """Count images of weights [rounds, N]."""
        return Weighted(self.truth @ weights.T, self.answer @ weights.T, self.right @ weights.T)


def divide(values: Floats, by: Floats) -> Floats:
    """Divide, with 0 where there is nothing to divide by."""
    return np.divide(values, by, out=np.zeros_like(values), where=by > 0)
