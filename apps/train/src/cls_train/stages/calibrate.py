"""What the exported model's confidence means: fitted to the validation logits of the best weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from loguru import logger

from cls_data import EvaluationOutputs
from cls_export import LabelsMapping
from cls_export.contract.calibration import (
    FITS,
    Calibration,
    CalibrationError,
    choose_reject,
    cross_fitted,
    softmax,
)
from cls_report import Clusters, Estimate, calibration_error
from cls_train.composition.config import Stages
from cls_train.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """Expected calibration error on valid, with 95 % intervals.

    Attributes:
        before: of the plain softmax.
        after: of probabilities that were each fitted on the other half of the images.
    """

    before: Estimate
    after: Estimate


def calibrate(
    labels: LabelsMapping, valid: EvaluationOutputs, groups: Sequence[str | None], stages: Stages
) -> tuple[LabelsMapping, CalibrationFigures | None]:
    """Return the mapping with calibration and thresholds, as far as the stages ask for them, and what they bring.

    Args:
        labels: the mapping so far.
        valid: the best weights' answers.
        groups: of valid's rows; None for a row that is on its own.
        stages: what is asked for.

    Raises:
        ConfigError: a precision that no threshold reaches.
    """
    logits, truth = valid.logits.numpy(), valid.labels.numpy()
    clusters = Clusters.from_groups(
        np.array([groups[row] or "" for row in valid.index.tolist()], np.str_)
    )
    figures = None
    if stages.calibrate is not None:
        fit = FITS[stages.calibrate]
        try:
            labels = labels.model_copy(update={"calibration": fit(logits, truth)})
        except CalibrationError as error:
            logger.info("the exported model's confidence stays the plain softmax: {}", error)
        else:
            figures = _figures(logits, truth, fit, clusters)
    if (wish := stages.reject) is not None:
        scaled = labels.calibration.apply(logits) if labels.calibration else logits
        wanted, level = (
            ("precision", wish.precision)
            if wish.precision is not None
            else ("coverage", wish.coverage)
        )
        assert level is not None
        try:
            reject = choose_reject(
                softmax(scaled),
                truth,
                labels.classes,
                wanted="precision" if wanted == "precision" else "coverage",
                level=level,
                per_class=wish.per_class,
                answers=logits.argmax(axis=1),
            )
        except CalibrationError as error:
            raise ConfigError(f"stages.reject.{wanted}: {error}") from error
        labels = labels.model_copy(update={"reject": reject})
    return labels, figures


def _figures(
    logits: np.ndarray, truth: np.ndarray, fit: Callable[..., Calibration], clusters: Clusters
) -> CalibrationFigures | None:
    try:
        after = cross_fitted(logits, truth, fit, groups=clusters.of)
    except CalibrationError as error:
        logger.info("what the calibration brings cannot be measured on halves of valid: {}", error)
        return None
    before, answers = softmax(logits), logits.argmax(axis=1)
    errors = (
        calibration_error(each[np.arange(len(truth)), answers], answers == truth, clusters)
        for each in (before, after)
    )
    return CalibrationFigures(*errors)
