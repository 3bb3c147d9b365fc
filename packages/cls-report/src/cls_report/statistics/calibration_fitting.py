"""Fit a calibration of logits: temperature scaling and vector scaling.

Both methods are from Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599.
Shapes: N images, C classes. Fit on some images, and measure the calibration error on others.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from cls_export.contract.calibration import Calibration, log_softmax, softmax
from cls_report.errors import CalibrationError
from cls_report.statistics.intervals import Floats, Integers

_SMALLEST_SCALE = 1e-9
"""A scale of 0 would make every class equally probable, and the contract requires more than 0."""

Fit = Callable[[NDArray[np.floating[Any]], NDArray[np.integer[Any]]], Calibration]


def fit_temperature(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> Calibration:
    """Fit one scale for all logits by maximum likelihood.

    Args:
        logits: [N, C] of images that were not trained on.
        labels: [N], 0 to C - 1.

    Raises:
        CalibrationError: Wrong shapes, values that are not finite, or no incorrect prediction: the
            likelihood then increases with the scale without limit.
    """
    checked_logits, checked_labels = check_scores(logits, labels)
    images = len(checked_labels)
    predicted = checked_logits.argmax(axis=1)
    if np.array_equal(predicted, checked_labels):
        raise CalibrationError(
            f"all {images} predictions are correct, so no temperature can be fitted; "
            "calibrate on more images"
        )

    rows = np.arange(images)
    label_logits = checked_logits[rows, checked_labels]

    def loss_and_gradient(parameters: Floats) -> tuple[float, Floats]:
        log_probabilities = log_softmax(checked_logits * parameters[0])
        loss = -log_probabilities[rows, checked_labels].mean()
        probabilities = np.exp(log_probabilities)
        expected_logits = (probabilities * checked_logits).sum(axis=1)
        gradient = (expected_logits - label_logits).mean()
        return float(loss), np.array([gradient])

    scale = _minimize(loss_and_gradient, np.ones(1), scales=1)
    return Calibration(method="temperature", scale=(float(scale[0]),), images=images)


def fit_vector(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], strength: float = 0.1
) -> Calibration:
    """Fit a scale and a bias for each class, with a quadratic penalty toward the temperature.

    Without the penalty, 2 C parameters overfit a few images per class.

    Args:
        logits: [N, C] of images that were not trained on.
        labels: [N], 0 to C - 1.
        strength: Weight of half the squared distance from the fitted temperature without bias,
            added to the mean loss in nats.

    Raises:
        CalibrationError: See `fit_temperature`.
    """
    temperature_scale = fit_temperature(logits, labels).scale[0]
    checked_logits, checked_labels = check_scores(logits, labels)
    images, classes = checked_logits.shape
    scales = np.full(classes, temperature_scale)
    center = np.concatenate([scales, np.zeros(classes)])
    rows = np.arange(images)

    def loss_and_gradient(parameters: Floats) -> tuple[float, Floats]:
        scale, bias = parameters[:classes], parameters[classes:]
        log_probabilities = log_softmax(checked_logits * scale + bias)
        loss = -log_probabilities[rows, checked_labels].mean()
        distance = parameters - center
        penalty = 0.5 * strength * (distance**2).sum()

        residuals = np.exp(log_probabilities)
        residuals[rows, checked_labels] -= 1
        scale_gradient = (residuals * checked_logits).mean(axis=0)
        bias_gradient = residuals.mean(axis=0)
        gradient = np.concatenate([scale_gradient, bias_gradient])
        return float(loss + penalty), gradient + strength * distance

    fitted = _minimize(loss_and_gradient, center, scales=classes)
    scale, bias = fitted[:classes], fitted[classes:]
    return Calibration(
        method="vector", scale=tuple(scale.tolist()), bias=tuple(bias.tolist()), images=images
    )


FITS: Mapping[str, Fit] = {"temperature": fit_temperature, "vector": fit_vector}
"""The fitting function of each calibration method."""


def cross_fit(
    logits: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    fit: Fit,
    seed: int = 0,
    *,
    groups: Integers | None = None,
) -> Floats:
    """Calibrate each half of the images with a fit on the other half.

    The calibration error of the result uses every image, and no image was part of its own fit.

    Args:
        logits: [N, C].
        labels: [N], 0 to C - 1.
        fit: One of `FITS`.
        seed: Seed of the random split into halves.
        groups: [N]; images with equal values stay in one half. The default splits single images.

    Returns:
        Probabilities float64 [N, C].

    Raises:
        CalibrationError: One of the halves cannot be fitted. With few groups it may be empty.
    """
    checked_logits, checked_labels = check_scores(logits, labels)
    if groups is None:
        groups = np.arange(len(checked_labels))
    names, index = np.unique(groups, return_inverse=True)
    count = len(names)
    order = np.random.default_rng(seed).permutation(count)
    is_first_half = order < count // 2
    in_first = is_first_half[index]
    in_second = ~in_first

    probabilities = np.empty_like(checked_logits)
    for fit_rows, rows in ((in_first, in_second), (in_second, in_first)):
        calibration = fit(checked_logits[fit_rows], checked_labels[fit_rows])
        scaled = calibration.apply(checked_logits[rows])
        probabilities[rows] = softmax(scaled)

    return probabilities


def check_scores(
    scores: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> tuple[Floats, Integers]:
    """Return logits or probabilities as float64 [N, C], and labels as int64 [N].

    Raises:
        CalibrationError: Wrong shapes, values that are not finite, or labels out of range.
    """
    values: Floats = np.asarray(scores, np.float64)
    targets = np.asarray(labels)
    has_images = values.ndim == 2 and len(values) > 0 and targets.shape == values.shape[:1]
    if not has_images or values.shape[1] < 2:
        raise CalibrationError(
            "expected values [N, C] and labels [N] of at least one image and two classes, got "
            f"shapes {values.shape} and {targets.shape}"
        )
    if not np.isfinite(values).all():
        raise CalibrationError("a logit or probability is not a finite number")

    classes = values.shape[1]
    is_integer = np.issubdtype(targets.dtype, np.integer)
    if not is_integer or targets.min() < 0 or targets.max() >= classes:
        raise CalibrationError(
            f"labels must be integers from 0 to {classes - 1}, got {targets.dtype} from "
            f"{targets.min()} to {targets.max()}"
        )
    return values, targets.astype(np.int64)


def _minimize(
    loss_and_gradient: Callable[[Floats], tuple[float, Floats]], start: Floats, *, scales: int
) -> Floats:
    """Minimize a convex loss; the first `scales` parameters stay positive."""
    bounds: list[tuple[float | None, None]] = [(None, None)] * len(start)
    bounds[:scales] = [(_SMALLEST_SCALE, None)] * scales
    result = optimize.minimize(
        loss_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 10_000, "maxfun": 100_000, "ftol": 1e-15, "gtol": 1e-9},
    )
    minimum: Floats = result.x
    return minimum
