"""Calibrate the exported confidence on the validation outputs of the best weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from loguru import logger

from cls_data import EvaluationOutputs
from cls_export import LabelsMapping
from cls_export.contract.calibration import softmax
from cls_report import (
    FITS,
    CalibrationError,
    Clusters,
    Estimate,
    RejectChoice,
    choose_reject,
    estimate_calibration_error,
    measure_gain,
)
from cls_report.statistics.intervals import Floats, Integers
from cls_train.composition.config import RejectionTarget, Stages
from cls_train.errors import RunFailedError


@dataclass(frozen=True, slots=True)
class CalibrationEffect:
    """Expected calibration error on valid, with 95% confidence intervals.

    Attributes:
        before: Of the uncalibrated softmax.
        after: Of cross-fitted probabilities: each fold of the images is calibrated on the others.
    """

    before: Estimate
    after: Estimate


@dataclass(frozen=True, slots=True)
class _ValidLogits:
    """Logits [N, C] and labels [N] of valid, and which images belong together."""

    logits: Floats
    labels: Integers
    clusters: Clusters

    @classmethod
    def from_outputs(
        cls, outputs: EvaluationOutputs, groups: Sequence[str | None]
    ) -> "_ValidLogits":
        names = [groups[row] or "" for row in outputs.index.tolist()]
        clusters = Clusters.from_groups(np.array(names, np.str_))
        return cls(outputs.logits.numpy(), outputs.labels.numpy(), clusters)


def calibrate(
    labels: LabelsMapping, valid: EvaluationOutputs, groups: Sequence[str | None], stages: Stages
) -> tuple[LabelsMapping, CalibrationEffect | None]:
    """Add the configured calibration and rejection thresholds to a labels mapping.

    A calibration is kept only if it increases the cross-validated likelihood by more than noise
    (see `cls_report.measure_gain`), and thresholds only if they reach their target. Otherwise the
    mapping has none, and its `confidence_notes` say why.

    Args:
        labels: The mapping without them.
        valid: Outputs of the best weights on valid.
        groups: Group of each row of valid; None for a row without one.
        stages: `calibrate` and `reject` are used.

    Returns:
        The mapping, and the calibration errors if it is calibrated.

    Raises:
        RunFailedError: `reject.required` is set, and no threshold reaches the target.
    """
    outputs = _ValidLogits.from_outputs(valid, groups)
    notes = []
    effect = None
    if stages.calibrate is not None:
        labels, effect, note = _calibrate(labels, outputs, stages.calibrate)
        if note:
            logger.info("{}", note)
            notes.append(note)

    if stages.reject is not None:
        choice = _choose_thresholds(labels, outputs, stages.reject)
        for note in choice.notes:
            logger.warning("{}", note)
        notes += choice.notes
        labels = labels.model_copy(update={"reject": choice.reject})

    return labels.model_copy(update={"confidence_notes": tuple(notes)}), effect


def _calibrate(
    labels: LabelsMapping, valid: _ValidLogits, method: str
) -> tuple[LabelsMapping, CalibrationEffect | None, str]:
    """Return the mapping with its calibration and its effect, or the reason for having none."""
    fit = FITS[method]
    try:
        gain = measure_gain(valid.logits, valid.labels, fit, valid.clusters)
        calibration = fit(valid.logits, valid.labels)
    except CalibrationError as error:
        return labels, None, f"not calibrated: {error}"
    if not gain.is_significant:
        return labels, None, f"not calibrated: {gain.describe()}"

    predicted = valid.logits.argmax(axis=1)
    rows = np.arange(len(valid.labels))
    is_correct = predicted == valid.labels
    before_confidence = softmax(valid.logits)[rows, predicted]
    after_confidence = gain.probabilities[rows, predicted]
    effect = CalibrationEffect(
        before=estimate_calibration_error(before_confidence, is_correct, valid.clusters),
        after=estimate_calibration_error(after_confidence, is_correct, valid.clusters),
    )
    return labels.model_copy(update={"calibration": calibration}), effect, ""


def _choose_thresholds(
    labels: LabelsMapping, valid: _ValidLogits, target: RejectionTarget
) -> RejectChoice:
    scaled = labels.calibration.apply(valid.logits) if labels.calibration else valid.logits
    level = target.coverage if target.precision is None else target.precision
    assert level is not None
    choice = choose_reject(
        softmax(scaled),
        valid.labels,
        labels.classes,
        wanted="coverage" if target.precision is None else "precision",
        level=level,
        per_class=target.per_class,
        predicted=valid.logits.argmax(axis=1),
    )
    if choice.notes and target.required:
        raise RunFailedError(
            f"stages.reject.precision: {'; '.join(choice.notes)}. Lower it, or set "
            "stages.reject.required=false to export without"
        )
    return choice
