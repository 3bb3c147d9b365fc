"""Decide whether a calibration improves the confidence, or only follows chance.

Shapes: N images, C classes.
"""

import math
from dataclasses import dataclass

import numpy as np

from cls_export.contract.calibration import log_softmax
from cls_report.errors import CalibrationError
from cls_report.statistics.calibration_fitting import Fit, Labels, Logits, check_scores, cross_fit
from cls_report.statistics.intervals import Clusters, Floats, design_effect

_STANDARD_ERRORS = 2.0
_MIN_MISTAKES = 10
"""With fewer, the standard error itself is a guess: the mistakes determine the likelihood."""
_DETECTABLE_GAIN = 0.01
"""Nats per image. If a gain of this size is within the noise, there are too few images."""
_SMALLEST_PROBABILITY = 1e-300


@dataclass(frozen=True, slots=True)
class CalibrationGain:
    """How much a calibration increases the likelihood of images that it was not fitted on.

    Attributes:
        mean: Mean gain of the log-likelihood, in nats per image.
        standard_error: Its standard error, with dependent images counted as such.
        images: Number of images, N.
        probabilities: Calibrated probabilities [N, C], each by a fit on other images.
    """

    mean: float
    standard_error: float
    images: int
    probabilities: Floats

    @property
    def is_significant(self) -> bool:
        """Whether the mean is more than two standard errors above 0."""
        return self.mean > _STANDARD_ERRORS * self.standard_error

    def describe(self) -> str:
        """Return why a calibration is not kept."""
        figures = (
            f"cross-validated on {self.images} images, the log-likelihood changes by "
            f"{self.mean:+.4f} nats per image, with a standard error of {self.standard_error:.4f}"
        )
        if _STANDARD_ERRORS * self.standard_error > _DETECTABLE_GAIN:
            return f"too few images to tell an improvement from chance ({figures})"
        return f"no improvement ({figures})"


def measure_gain(
    logits: Logits, labels: Labels, fit: Fit, clusters: Clusters | None = None
) -> CalibrationGain:
    """Cross-validate a calibration of logits [N, C] with labels [N].

    The gain of image i is d_i = log p_calibrated(label_i) - log p_softmax(label_i), with the
    calibration fitted on the other four fifths of the clusters. The standard error of the mean
    is sqrt(design effect * variance of d / N).

    Raises:
        CalibrationError: Fewer than ten incorrect predictions, or see `cross_fit`.
    """
    values, targets = check_scores(logits, labels)
    images = len(targets)
    mistakes = int((values.argmax(axis=1) != targets).sum())
    if mistakes < _MIN_MISTAKES:
        raise CalibrationError(
            f"too few images ({mistakes} of {images} predictions are incorrect, and calibration "
            f"needs at least {_MIN_MISTAKES} of them)"
        )
    if clusters is None:
        clusters = Clusters(np.arange(images), images)
    probabilities = cross_fit(values, targets, fit, groups=clusters.index)

    rows = np.arange(images)
    label_probabilities = np.maximum(probabilities[rows, targets], _SMALLEST_PROBABILITY)
    gains = np.log(label_probabilities) - log_softmax(values)[rows, targets]
    variance = gains.var(ddof=1) * design_effect(gains, clusters)
    return CalibrationGain(
        mean=float(gains.mean()),
        standard_error=math.sqrt(variance / images),
        images=images,
        probabilities=probabilities,
    )
