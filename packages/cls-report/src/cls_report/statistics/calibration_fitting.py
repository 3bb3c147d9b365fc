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

# A scale of 0 would make every class equally probable, and the contract requires more than 0.
_SMALLEST_SCALE = 1e-9

Logits = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]
Fit = Callable[[Logits, Labels], Calibration]


def fit_temperature(logits: Logits, labels: Labels) -> Calibration:
    """Fit one scale for all logits [N, C] by maximum likelihood, on images not trained on.

    Raises:
        CalibrationError: Wrong shapes, labels that are not 0 to C - 1, values that are not finite,
            or no incorrect prediction: the likelihood then increases with the scale without limit.
    """
    values, targets = check_scores(logits, labels)
    images = len(targets)
    predicted = values.argmax(axis=1)
    if np.array_equal(predicted, targets):
        raise CalibrationError(
            f"all {images} predictions are correct, so no temperature can be fitted; "
            "calibrate on more images"
        )

    rows = np.arange(images)
    label_logits = values[rows, targets]

    def loss_and_gradient(parameters: Floats) -> tuple[float, Floats]:
        (scale,) = parameters
        scaled = values * scale
        log_probabilities = log_softmax(scaled)
        log_likelihood = log_probabilities[rows, targets]
        loss = -log_likelihood.mean()

        probabilities = np.exp(log_probabilities)
        weighted = probabilities * values
        expected_logits = weighted.sum(axis=1)
        differences = expected_logits - label_logits
        gradient = differences.mean()
        return float(loss), np.array([gradient])

    (scale,) = _minimize(loss_and_gradient, np.ones(1), scales=1)
    return Calibration(method="temperature", scale=(scale,), images=images)


def fit_vector(logits: Logits, labels: Labels, strength: float = 0.1) -> Calibration:
    """Fit a scale and a bias for each class, with a quadratic penalty toward the temperature.

    Without the penalty, 2 C parameters overfit a few images per class. The penalty is half the
    squared distance from the fitted temperature without bias. It is multiplied by `strength` and
    added to the mean loss in nats.

    Raises:
        CalibrationError: See `fit_temperature`.
    """
    (temperature_scale,) = fit_temperature(logits, labels).scale
    values, targets = check_scores(logits, labels)
    images, classes = values.shape
    scales = np.full(classes, temperature_scale)
    biases = np.zeros(classes)
    center = np.concatenate([scales, biases])
    rows = np.arange(images)

    def loss_and_gradient(parameters: Floats) -> tuple[float, Floats]:
        scale, bias = np.split(parameters, 2)
        scaled = values * scale + bias
        log_probabilities = log_softmax(scaled)
        log_likelihood = log_probabilities[rows, targets]
        loss = -log_likelihood.mean()
        distance = parameters - center
        squares = (distance**2).sum()
        penalty = 0.5 * strength * squares

        residuals = np.exp(log_probabilities)
        residuals[rows, targets] -= 1
        weighted = residuals * values
        scale_gradient = weighted.mean(axis=0)
        bias_gradient = residuals.mean(axis=0)
        gradient = np.concatenate([scale_gradient, bias_gradient])
        gradient += strength * distance
        return float(loss + penalty), gradient

    fitted = _minimize(loss_and_gradient, center, scales=classes)
    scale = fitted[:classes]
    bias = fitted[classes:]
    return Calibration(method="vector", scale=tuple(scale), bias=tuple(bias), images=images)


FITS: Mapping[str, Fit] = {"temperature": fit_temperature, "vector": fit_vector}
"""The fitting function of each calibration method."""


def cross_fit(
    logits: Logits,
    labels: Labels,
    fit: Fit,
    seed: int = 0,
    *,
    folds: int = 5,
    groups: Integers | None = None,
) -> Floats:
    """Calibrate each fold of the images with a fit on the other folds.

    Images with equal `groups` [N] stay in one fold; the default splits single images. There are as
    many folds as groups if those are fewer.

    Returns:
        Probabilities float64 [N, C].

    Raises:
        CalibrationError: There is only one group, or the images of some folds cannot be fitted.
    """
    values, targets = check_scores(logits, labels)
    if groups is None:
        groups = np.arange(len(targets))
    names, index = np.unique(groups, return_inverse=True)
    count = len(names)
    folds = min(folds, count)
    if folds < 2:
        raise CalibrationError(f"{len(targets)} images of one group cannot be cross-validated")

    generator = np.random.default_rng(seed)
    fold_of_group = generator.permutation(count) % folds
    fold_of_image = fold_of_group[index]

    probabilities = np.empty_like(values)
    for fold in range(folds):
        is_held_out = fold_of_image == fold
        calibration = fit(values[~is_held_out], targets[~is_held_out])
        scaled = calibration.apply(values[is_held_out])
        probabilities[is_held_out] = softmax(scaled)

    return probabilities


def check_scores(scores: Logits, labels: Labels) -> tuple[Floats, Integers]:
    """Return logits or probabilities as float64 [N, C], and labels as int64 [N].

    Raises:
        CalibrationError: Wrong shapes, values that are not finite, or labels out of range.
    """
    values: Floats = np.asarray(scores, np.float64)
    targets = np.asarray(labels)
    has_images = values.ndim == 2 and targets.shape == values.shape[:1] and len(targets) > 0
    if not has_images or values.shape[1] < 2:
        raise CalibrationError(
            "expected values [N, C] and labels [N] of at least one image and two classes, got "
            f"shapes {values.shape} and {targets.shape}"
        )
    if not np.isfinite(values).all():
        raise CalibrationError("a logit or probability is not a finite number")

    last = values.shape[1] - 1
    lowest = targets.min()
    highest = targets.max()
    is_integer = np.issubdtype(targets.dtype, np.integer)
    if not is_integer or lowest < 0 or highest > last:
        raise CalibrationError(
            f"labels must be integers from 0 to {last}, got {targets.dtype} from {lowest} to "
            f"{highest}"
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
