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


@dataclass(frozen=True, slots=True)
class RejectChoice:
    """Rejection thresholds, or why there are none.

    Attributes:
        reject: The thresholds; None if no threshold for all classes reaches the precision.
        notes: One sentence for each threshold that was asked for and does not exist, with the
            highest precision that is reached.
    """

    reject: Reject | None
    notes: tuple[str, ...] = ()


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
) -> RejectChoice:
    """Choose the lowest threshold with the required precision, or the highest with the coverage.

    A class for which no threshold reaches the precision has the threshold of all classes.

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
        CalibrationError: Wrong shapes or values.
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
    curve = risk_coverage(confidence, correct)
    threshold = _find_threshold(curve, wanted, level)
    if threshold is None:
        highest = _describe_highest(curve, images)
        note = f"no rejection threshold: none reaches a precision of {level:.1%}; {highest}"
        return RejectChoice(None, (note,))

    by_class = {}
    notes = []
    for index, name in enumerate(classes if per_class else ()):
        is_predicted = np.asarray(predicted == index)
        count = int(is_predicted.sum())
        if count < min_predictions:
            continue
        curve = risk_coverage(confidence[is_predicted], correct[is_predicted])
        class_threshold = _find_threshold(curve, wanted, level)
        if class_threshold is None:
            highest = _describe_highest(curve, count)
            note = (
                f"class {name!r} uses the rejection threshold of all classes, because none of its "
                f"own reaches a precision of {level:.1%}; {highest}"
            )
            notes.append(note)
        else:
            by_class[name] = class_threshold

    reject = Reject(
        threshold=threshold, by_class=by_class, wanted=wanted, level=level, images=images
    )
    return RejectChoice(reject, tuple(notes))


def _find_threshold(curve: RiskCoverage, wanted: Criterion, level: float) -> float | None:
    if wanted == "coverage":
        reached = np.flatnonzero(curve.coverage >= level)
        return float(curve.thresholds[reached[0]])

    max_risk = 1 - level + _ROUNDING
    reached = np.flatnonzero(curve.risk <= max_risk)
    if len(reached) == 0:
        return None
    return float(curve.thresholds[reached[-1]])


def _describe_highest(curve: RiskCoverage, images: int) -> str:
    highest = 1 - curve.risk.min()
    return f"the highest on {images} images is {highest:.1%}"
