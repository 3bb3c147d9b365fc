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
    Floats,
    bca_interval,
    bootstrap_weights,
    mean_interval,
    proportion_interval,
)


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Metrics of one class. A metric without images has no value.

    Attributes:
        support: Number of images with this label.
        answered: Number of predictions of this class.
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
    """Compute all metrics, with bootstrap weights [rounds, N] that are drawn if not given."""
    clusters = evaluated.clusters
    correct = evaluated.correct
    if weights is None:
        weights = bootstrap_weights(clusters)
    precision, recall, f1 = _macro_scores(evaluated, weights)
    calibration_error = estimate_calibration_error(evaluated.confidence, correct, clusters)
    return EvaluationScores(
        images=len(evaluated),
        right=int(correct.sum()),
        groups=clusters.count if clusters.is_grouped else None,
        top1=proportion_interval(correct, clusters),
        top5=proportion_interval(evaluated.in_top_k(5), clusters),
        macro_precision=precision,
        macro_recall=recall,
        macro_f1=f1,
        auroc=_auroc(evaluated, weights),
        loss=mean_interval(evaluated.losses, clusters, weights),
        calibration_error=calibration_error,
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
        count = self.support + self.predicted
        occurs = count > 0
        occurring = values * occurs
        total = occurring.sum(axis=0)
        classes = occurs.sum(axis=0).astype(np.float64)
        return _divide(total, classes)


@dataclass(frozen=True, slots=True)
class _ClassIndicators:
    """Sparse 0/1 matrices [K, N]: label, prediction, and correct prediction of each image.

    K is the number of classes that occur as label or prediction. All sums and averages are over
    them, and of 100,000 classes a thousand bootstrap samples would take gigabytes.
    """

    labels: sparse.csr_array
    predicted: sparse.csr_array
    correct: sparse.csr_array

    @classmethod
    def from_predictions(cls, evaluated: EvaluatedPredictions) -> "_ClassIndicators":
        count = len(evaluated)
        columns = np.arange(count)
        both = np.concatenate([evaluated.labels, evaluated.predicted])
        occurring, rows = np.unique(both, return_inverse=True)
        shape = (len(occurring), count)
        label_cells = (rows[:count], columns)
        predicted_cells = (rows[count:], columns)
        ones = np.ones(count)
        is_correct = evaluated.correct.astype(np.float64)
        labels = sparse.csr_array((ones, label_cells), shape)
        predicted = sparse.csr_array((ones, predicted_cells), shape)
        correct = sparse.csr_array((is_correct, predicted_cells), shape)
        return cls(labels, predicted, correct)

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

    def interval(value: Floats, samples: Floats, influence: Floats) -> Estimate:
        by_cluster = clusters.sum_by_cluster(influence)
        (average,) = total.macro_average(value)
        return bca_interval(average, resampled.macro_average(samples), by_cluster)

    influence = _influence(total.precision, images.correct, images.predicted, total.predicted)
    precision = interval(total.precision, resampled.precision, influence)

    influence = _influence(total.recall, images.correct, images.labels, total.support)
    recall = interval(total.recall, resampled.recall, influence)

    occurrences = images.predicted + images.labels
    count = total.support + total.predicted
    influence = _influence(total.f1, 2 * images.correct, occurrences, count)
    f1 = interval(total.f1, resampled.f1, influence)
    return precision, recall, f1


def _influence(
    ratios: Floats, numerator: sparse.csr_array, denominator: sparse.csr_array, totals: Floats
) -> Floats:
    """Return how much each image moves the sum of the classes' ratios: float64 [N].

    The ratio [C, 1] of a class is its numerator over its denominator, each sparse [C, N] and summed
    over images. The sums of the denominators are `totals` [C, 1].
    """
    values = ratios[:, 0]
    divisors = totals[:, 0]
    ones = np.ones(len(values))
    scale = _divide(ones, divisors)
    scaled = values * scale
    gain = numerator.T @ scale
    loss = denominator.T @ scaled
    influence: Floats = gain - loss
    return influence


def _divide(values: Floats, by: Floats) -> Floats:
    """Divide; the result is 0 where the divisor is 0."""
    quotients = np.zeros_like(values)
    is_positive = by > 0
    np.divide(values, by, out=quotients, where=is_positive)
    return quotients


def _auroc(evaluated: EvaluatedPredictions, weights: Floats) -> Estimate:
    """Return the macro AUROC with an interval from its influence function.

    The influence function is that of DeLong et al. (Biometrics 44, 1988).
    """
    total = 0.0
    classes = 0
    influence = np.zeros(len(evaluated))
    for index in np.unique(evaluated.labels):
        is_positive = evaluated.labels == index
        is_negative = ~is_positive
        values = evaluated.log_probabilities[:, index]
        positive = values[is_positive]
        negative = values[is_negative]
        if len(negative) == 0:
            continue

        ranks = np.empty(len(evaluated))
        ranks[is_positive] = _share_below(positive, negative)
        ranks[is_negative] = 1 - _share_below(negative, positive)

        area = float(ranks[is_positive].mean())
        total += area
        classes += 1
        positive_share = 1 / len(positive)
        negative_share = 1 / len(negative)
        share = np.where(is_positive, positive_share, negative_share)
        centered = ranks - area
        influence += centered * share

    if classes == 0:
        return Estimate(value=None)

    average = influence / classes
    resampled = weights @ average
    deviation = float(resampled.std())
    return _logit_interval(total / classes, deviation)


def _logit_interval(value: float, deviation: float) -> Estimate:
    """Return a normal interval on the logit scale, which keeps the bounds between 0 and 1.

    For a value near 1, an interval on the original scale covers the truth too seldom.
    """
    if not 0 < value < 1:
        return Estimate(value=value)

    rest = 1 - value
    slope = value * rest
    center = np.log(value / rest)
    half = 1.959964 * deviation / slope
    bounds = []
    for logit in (center - half, center + half):
        odds_against = np.exp(-logit)
        bounds.append(float(1 / (1 + odds_against)))
    low, high = bounds
    return Estimate(value=value, low=low, high=high)


def _share_below(values: Floats, others: Floats) -> Floats:
    """Return the share of others [M] below each value [N]; ties count half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, "left")
    not_above = np.searchsorted(ordered, values, "right")
    doubled = below + not_above
    count = len(ordered)
    return doubled / (2 * count)


def _class_scores(evaluated: EvaluatedPredictions) -> tuple[ClassScores, ...]:
    correct = evaluated.correct
    clusters = evaluated.clusters
    scores = []
    for index, name in enumerate(evaluated.classes):
        is_label = evaluated.labels == index
        is_predicted = evaluated.predicted == index
        either = is_label | is_predicted
        precision = proportion_interval(correct[is_predicted], clusters.subset(is_predicted))
        recall = proportion_interval(correct[is_label], clusters.subset(is_label))
        share = proportion_interval(correct[either], clusters.subset(either))
        class_scores = ClassScores(
            name=name,
            support=int(is_label.sum()),
            answered=int(is_predicted.sum()),
            precision=precision,
            recall=recall,
            f1=_f1_from_share(share),
        )
        scores.append(class_scores)

    return tuple(scores)


def _f1_from_share(share: Estimate) -> Estimate:
    """Convert the correct share of a class's images and predictions to F1.

    With the share s, F1 is 2 s / (1 + s), which increases with s, so bounds convert likewise.
    """
    converted = dict(share)
    for name, value in share:
        if value is not None:
            converted[name] = 2 * value / (1 + value)

    return Estimate(**converted)
