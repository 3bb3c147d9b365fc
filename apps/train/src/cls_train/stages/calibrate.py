"""Calibrate the exported confidence on the validation outputs of the best weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from loguru import logger

from cls_data import EvaluationOutputs
from cls_export import LabelsMapping
from cls_export.contract.calibration import Calibration, Reject, softmax
from cls_report import (
    FITS,
    CalibrationError,
    Clusters,
    Estimate,
    choose_reject,
    cross_fit,
    estimate_calibration_error,
)
from cls_train.composition.config import RejectionTarget, Stages
from cls_train.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CalibrationEffect:
    """Expected calibration error on valid, with 95% confidence intervals.

    Attributes:
        before: Of the uncalibrated softmax.
        after: Of cross-fitted probabilities: each half of the images is calibrated on the other
            half.
    """

    before: Estimate
    after: Estimate


def calibrate(
    labels: LabelsMapping, valid: EvaluationOutputs, groups: Sequence[str | None], stages: Stages
) -> tuple[LabelsMapping, CalibrationEffect | None]:
    """Add the configured calibration and rejection thresholds to a labels mapping.

    Args:
        labels: The mapping without them.
        valid: Outputs of the best weights on valid.
        groups: Group of each row of valid; None for a row without one.
        stages: `calibrate` and `reject` are used.

    Returns:
        The mapping, and the calibration errors if they can be measured.

    Raises:
        ConfigError: No threshold reaches the rejection target.
    """
    logits, truth = valid.logits.numpy(), valid.labels.numpy()
    group_names = [groups[row] or "" for row in valid.index.tolist()]
    clusters = Clusters.from_groups(np.array(group_names, np.str_))

    errors = None
    if stages.calibrate is not None:
        fit = FITS[stages.calibrate]
        try:
            labels = labels.model_copy(update={"calibration": fit(logits, truth)})
        except CalibrationError as error:
            logger.info("not calibrated, exporting softmax confidence: {}", error)
        else:
            errors = _measure_effect(logits, truth, fit, clusters)

    if stages.reject is not None:
        reject = _choose_thresholds(labels, logits, truth, stages.reject)
        labels = labels.model_copy(update={"reject": reject})
    return labels, errors


def _choose_thresholds(
    labels: LabelsMapping, logits: np.ndarray, truth: np.ndarray, target: RejectionTarget
) -> Reject:
    scaled = labels.calibration.apply(logits) if labels.calibration else logits
    name = "coverage" if target.precision is None else "precision"
    level = target.coverage if target.precision is None else target.precision
    assert level is not None
    try:
        return choose_reject(
            softmax(scaled),
            truth,
            labels.classes,
            wanted="coverage" if target.precision is None else "precision",
            level=level,
            per_class=target.per_class,
            predicted=logits.argmax(axis=1),
        )
    except CalibrationError as error:
        raise ConfigError(f"stages.reject.{name}: {error}") from error


def _measure_effect(
    logits: np.ndarray, truth: np.ndarray, fit: Callable[..., Calibration], clusters: Clusters
) -> CalibrationEffect | None:
    try:
        after = cross_fit(logits, truth, fit, groups=clusters.index)
    except CalibrationError as error:
        logger.info("calibration error not measured: {}", error)
        return None
    predicted = logits.argmax(axis=1)
    rows = np.arange(len(truth))
    is_correct = predicted == truth
    before_confidence = softmax(logits)[rows, predicted]
    after_confidence = after[rows, predicted]
    return CalibrationEffect(
        before=estimate_calibration_error(before_confidence, is_correct, clusters),
        after=estimate_calibration_error(after_confidence, is_correct, clusters),
    )
