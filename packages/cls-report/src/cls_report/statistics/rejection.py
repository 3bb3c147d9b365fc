"""Rejection of uncertain predictions: the risk-coverage curve and confidence thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cls_export.contract.calibration import Reject
from cls_report.errors import CalibrationError
from cls_report.statistics.calibration_fitting import check_scores
from cls_report.statistics.intervals import Booleans, Floats, Integers

# 7 errors in 100 reach a precision of 0.93, although 1 - 0.07 is less in floating point.
_ROUNDING = 1e-12

Criterion = Literal["precision", "coverage"]


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """A risk-coverage curve, from the highest threshold to the lowest.

    Attributes:
        thresholds: float64 [T], the distinct confidences, in descending order.
        coverage: float64 [T], share of images that are not rejected.
        risk: float64 [T], error rate among them.
    """

    thresholds: Floats
    coverage: Floats
    risk: Floats


def risk_coverage(confidence: Floats, correct: Booleans) -> RiskCoverage:
    """Return the risk-coverage curve of predictions [N] (El-Yaniv and Wiener, JMLR 11, 2010)."""
    images = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    descending = confidence[order]
    is_wrong = ~correct[order]
    errors = np.cumsum(is_wrong)
    accepted = np.arange(1, images + 1)
    coverage = accepted / max(1, images)
    risk = errors / accepted

    # Images of equal confidence share a threshold; the last of them has the counts.
    is_last = np.ones(images, np.bool_)
    is_last[:-1] = descending[1:] < descending[:-1]
    return RiskCoverage(descending[is_last], coverage[is_last], risk[is_last])


def choose_reject(
    probabilities: Floats,
    labels: Integers,
    classes: Sequence[str],
    *,
    wanted: Criterion,
    level: float,
    per_class: bool = False,
    min_predictions: int = 20,
    predicted: Integers | None = None,
) -> Reject:
    """Choose the lowest threshold with the required precision, or the highest with the coverage.

    Args:
        probabilities: Calibrated probabilities [N, C] of images that were not trained on.
        labels: [N], 0 to C - 1.
        classes: C names.
        wanted: Whether `level`, above 0 and at most 1, is the required precision or coverage.
        level: See `wanted`.
        per_class: Also choose a threshold for each class that is predicted often enough.
        min_predictions: The smallest number of predictions for a threshold of a class.
        predicted: [N], the predicted classes. The default is the most probable ones, which after
            a vector calibration may differ from those of the network.

    Raises:
        CalibrationError: Wrong shapes, or no threshold reaches the precision.
    """
    probabilities, labels = check_scores(probabilities, labels)
    if not 0 < level <= 1:
        raise CalibrationError(f"{wanted} must be above 0 and at most 1, got {level}")

    if predicted is None:
        predicted = probabilities.argmax(axis=1)
    images = len(labels)
    rows = np.arange(images)
    confidence = probabilities[rows, predicted]
    correct = np.asarray(predicted == labels)
    threshold = _choose_threshold(confidence, correct, wanted, level)

    by_class = {}
    for index, name in enumerate(classes if per_class else ()):
        is_predicted = np.asarray(predicted == index)
        if is_predicted.sum() >= min_predictions:
            by_class[name] = _choose_threshold(
                confidence[is_predicted],
                correct[is_predicted],
                wanted,
                level,
                f" for class {name!r}",
            )

    return Reject(threshold=threshold, by_class=by_class, wanted=wanted, level=level, images=images)


def _choose_threshold(
    confidence: Floats, correct: Booleans, wanted: Criterion, level: float, where: str = ""
) -> float:
    curve = risk_coverage(confidence, correct)
    if wanted == "coverage":
        reached = np.flatnonzero(curve.coverage >= level)
        return float(curve.thresholds[reached[0]])

    max_risk = 1 - level + _ROUNDING
    reached = np.flatnonzero(curve.risk <= max_risk)
    if len(reached) == 0:
        highest = 1 - curve.risk.min()
        raise CalibrationError(
            f"no threshold{where} reaches a precision of {level:.1%} on these "
            f"{len(correct)} images; the highest precision is {highest:.1%}"
        )

    return float(curve.thresholds[reached[-1]])
