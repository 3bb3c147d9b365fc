"""Classification metrics, each with its 95% interval.

Shapes: N images, C classes. Top-1, top-5, and macro-F1 have the names and values of training.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from cls_report.statistics.calibration import estimate_calibration_error
from cls_report.statistics.estimates import Estimate
from cls_report.statistics.evaluated_predictions import EvaluatedPredictions
from cls_report.statistics.intervals import (
    Clusters,
    Floats,
    bca_interval,
    bootstrap_weights,
    mean_interval,
    proportion_interval,
)


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Metrics of one class.

    Attributes:
        name: Name of the class.
        support: Number of its images.
        answered: Number of predictions of it.
        precision: Share of these predictions that are correct; no value if there are none.
        recall: Share of its images that are predicted correctly; no value if there are none.
        f1: 2 correct / (support + answered).
    """

    name: str
    support: int
    answered: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True, slots=True)
class EvaluationScores:
    """Metrics of one set of images, as evaluation.json stores them.

    Macro averages are over the classes that occur as label or prediction, as in torchmetrics; a
    precision or recall without images counts as 0. AUROC is one-vs-rest, averaged over the
    classes for which it is defined. The loss is the mean negative log-likelihood in nats, without
    label smoothing or class weights.

    Attributes:
        images: Number of images.
        right: Number of correct predictions.
        groups: Number of clusters; None if every image is independent.
    """

    images: int
    right: int
    groups: int | None
    top1: Estimate
    top5: Estimate
    macro_precision: Estimate
    macro_recall: Estimate
    macro_f1: Estimate
    auroc: Estimate
    loss: Estimate
    calibration_error: Estimate
    by_class: tuple[ClassScores, ...]


def compute_scores(
    evaluated: EvaluatedPredictions, weights: Floats | None = None
) -> EvaluationScores:
    """Compute all metrics.

    Args:
        evaluated: Predictions for N images.
        weights: float64 [rounds, N], bootstrap weights; drawn if not given.
    """
    clusters = evaluated.clusters
    if weights is None:
        weights = bootstrap_weights(clusters)
    precision, recall, f1 = _macro_scores(evaluated, weights)

    return EvaluationScores(
        images=len(evaluated),
        right=int(evaluated.correct.sum()),
        groups=clusters.count if clusters.is_grouped else None,
        top1=proportion_interval(evaluated.correct, clusters),
        top5=proportion_interval(evaluated.in_top_k(5), clusters),
        macro_precision=precision,
        macro_recall=recall,
        macro_f1=f1,
        auroc=_auroc(evaluated, weights),
        loss=mean_interval(evaluated.losses, clusters, weights),
        calibration_error=estimate_calibration_error(
            evaluated.confidence, evaluated.correct, clusters
        ),
        by_class=_class_scores(evaluated),
    )


def macro_f1(evaluated: EvaluatedPredictions, weights: Floats) -> Floats:
    """Return the macro-F1 [rounds] of images weighted by [rounds, N]."""
    images = _ClassIndicators.from_predictions(evaluated)
    counts = images.count(weights)
    return counts.macro_average(counts.f1)


@dataclass(frozen=True, slots=True)
class _ClassCounts:
    """Weighted number of images per class, each float64 [C, rounds]."""

    support: Floats
    predicted: Floats
    correct: Floats

    @property
    def precision(self) -> Floats:
        """Correct share of predictions [C, rounds]; 0 for a class that is never predicted."""
        return _divide(self.correct, self.predicted)

    @property
    def recall(self) -> Floats:
        """Correct share of images [C, rounds]; 0 for a class without images."""
        return _divide(self.correct, self.support)

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall [C, rounds]."""
        total = self.support + self.predicted
        return _divide(2 * self.correct, total)

    def macro_average(self, values: Floats) -> Floats:
        """Average values [C, rounds] over the classes that occur: [rounds]."""
        occurs = self.support + self.predicted > 0
        total = (values * occurs).sum(axis=0)
        classes = occurs.sum(axis=0).astype(np.float64)
        return _divide(total, classes)


@dataclass(frozen=True, slots=True)
class _ClassIndicators:
    """Sparse 0/1 matrices [C, N]: label, prediction, and correct prediction of each image."""

    labels: sparse.csr_array
    predicted: sparse.csr_array
    correct: sparse.csr_array

    @classmethod
    def from_predictions(cls, evaluated: EvaluatedPredictions) -> "_ClassIndicators":
        count = len(evaluated)
        columns = np.arange(count)
        shape = (len(evaluated.classes), count)
        is_label = (evaluated.labels, columns)
        is_predicted = (evaluated.predicted, columns)
        ones = np.ones(count)
        correct = evaluated.correct.astype(np.float64)

        return cls(
            labels=sparse.csr_array((ones, is_label), shape),
            predicted=sparse.csr_array((ones, is_predicted), shape),
            correct=sparse.csr_array((correct, is_predicted), shape),
        )

    def count(self, weights: Floats) -> _ClassCounts:
        """Count images weighted by [rounds, N]."""
        by_image = weights.T
        return _ClassCounts(
            support=self.labels @ by_image,
            predicted=self.predicted @ by_image,
            correct=self.correct @ by_image,
        )


def _macro_scores(
    evaluated: EvaluatedPredictions, weights: Floats
) -> tuple[Estimate, Estimate, Estimate]:
    """Return macro precision, macro recall, and macro-F1."""
    clusters = evaluated.clusters
    images = _ClassIndicators.from_predictions(evaluated)
    resampled = images.count(weights)
    total = images.count(np.ones((1, len(evaluated))))
    precision = _macro_interval(
        total.macro_average(total.precision),
        resampled.macro_average(resampled.precision),
        _influence(total.precision, images.correct, images.predicted, total.predicted),
        clusters,
    )
    recall = _macro_interval(
        total.macro_average(total.recall),
        resampled.macro_average(resampled.recall),
        _influence(total.recall, images.correct, images.labels, total.support),
        clusters,
    )
    f1 = _macro_interval(
        total.macro_average(total.f1),
        resampled.macro_average(resampled.f1),
        _influence(
            total.f1,
            2 * images.correct,
            images.predicted + images.labels,
            total.support + total.predicted,
        ),
        clusters,
    )
    return precision, recall, f1


def _macro_interval(
    total: Floats, resampled: Floats, influence: Floats, clusters: Clusters
) -> Estimate:
    by_cluster = clusters.sum_by_cluster(influence)
    return bca_interval(total[0], resampled, by_cluster)


def _influence(
    ratios: Floats, numerator: sparse.csr_array, denominator: sparse.csr_array, totals: Floats
) -> Floats:
    """Return how much each image moves the sum of the classes' ratios: float64 [N].

    Args:
        ratios: [C, 1], numerator over denominator of each class, summed over images.
        numerator: Sparse [C, N].
        denominator: Sparse [C, N].
        totals: [C, 1], the denominator of each class, summed over images.
    """
    values = ratios[:, 0]
    ones = np.ones(len(values))
    scale = _divide(ones, totals[:, 0])
    gain = numerator.T @ scale
    loss = denominator.T @ (values * scale)
    influence: Floats = gain - loss
    return influence


def _divide(values: Floats, by: Floats) -> Floats:
    """Divide; the result is 0 where the divisor is 0."""
    quotients = np.zeros_like(values)
    np.divide(values, by, out=quotients, where=by > 0)
    return quotients


def _auroc(evaluated: EvaluatedPredictions, weights: Floats) -> Estimate:
    """Return the macro AUROC with an interval from its influence function.

    The influence function is that of DeLong et al. (Biometrics 44, 1988).
    """
    total = 0.0
    classes = 0
    influence = np.zeros(len(evaluated))
    for index in np.unique(evaluated.labels):
        positive = evaluated.labels == index
        negative = ~positive
        positives = int(positive.sum())
        negatives = int(negative.sum())
        if negatives == 0:
            continue
        values = evaluated.log_probabilities[:, index]
        ranks = np.empty(len(evaluated))
        ranks[positive] = _share_below(values[positive], values[negative])
        ranks[negative] = 1 - _share_below(values[negative], values[positive])

        area = float(ranks[positive].mean())
        total += area
        classes += 1
        share = np.where(positive, 1 / positives, 1 / negatives)
        influence += (ranks - area) * share

    if classes == 0:
        return Estimate(value=None)
    resampled = weights @ (influence / classes)
    return _logit_interval(total / classes, float(resampled.std()))


def _logit_interval(value: float, deviation: float) -> Estimate:
    """Return a normal interval on the logit scale, which keeps the bounds between 0 and 1.

    For a value near 1, an interval on the original scale covers the truth too seldom.
    """
    if not 0 < value < 1:
        return Estimate(value=value)

    odds = value / (1 - value)
    center = np.log(odds)
    half = 1.959964 * deviation / (value * (1 - value))
    low_odds = np.exp(-(center - half))
    high_odds = np.exp(-(center + half))
    low = float(1 / (1 + low_odds))
    high = float(1 / (1 + high_odds))
    return Estimate(value=value, low=low, high=high)


def _share_below(values: Floats, others: Floats) -> Floats:
    """Return the share of others [M] below each value [N]; ties count half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, "left")
    not_above = np.searchsorted(ordered, values, "right")
    twice = 2 * len(ordered)
    return (below + not_above) / twice


def _class_scores(evaluated: EvaluatedPredictions) -> tuple[ClassScores, ...]:
    correct, clusters = evaluated.correct, evaluated.clusters
    scores = []
    for index, name in enumerate(evaluated.classes):
        is_label = evaluated.labels == index
        is_predicted = evaluated.predicted == index
        either = is_label | is_predicted
        class_scores = ClassScores(
            name=name,
            support=int(is_label.sum()),
            answered=int(is_predicted.sum()),
            precision=proportion_interval(correct[is_predicted], clusters.subset(is_predicted)),
            recall=proportion_interval(correct[is_label], clusters.subset(is_label)),
            f1=_f1_from_share(proportion_interval(correct[either], clusters.subset(either))),
        )
        scores.append(class_scores)

    return tuple(scores)


def _f1_from_share(share: Estimate) -> Estimate:
    """Convert the correct share of a class's images and predictions to F1.

    With the share s, F1 is 2 s / (1 + s), which increases with s, so bounds convert likewise.
    """
    bounds = []
    for value in (share.value, share.low, share.high):
        bounds.append(None if value is None else 2 * value / (1 + value))
    f1, low, high = bounds
    return Estimate(value=f1, low=low, high=high)
