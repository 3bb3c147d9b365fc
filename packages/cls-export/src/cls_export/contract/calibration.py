"""Confidence that means what it says: scaling of logits, thresholds, and how well both do.

Shapes: N images, C classes. All figures are of the images that are given: fit on some, and measure on others.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Offset = Annotated[float, Field(allow_inf_nan=False)]

_BINS = 15
_STEPS = 100
_DAMPING = 1e-9
_SHORTEST = 1e-6
"""Share of Newton's step below which the loss falls no more, but for rounding."""
_ROUNDING = 1e-12
"""Of a share: 7 wrong of 100 reach a precision of 0.93, though 1 - 0.07 lies below it."""
_ENOUGH = 1e-12
"""Nats by which a step lowers the mean loss when it is the last."""


class CalibrationError(ValueError):
    """Logits and labels that nothing can be fitted to, or a wish that they cannot fulfil."""


class Calibration(BaseModel):
    """How logits become probabilities: softmax(scale * logits + bias). The graph's logits stay as they are.

    Attributes:
        method: `temperature`, one scale for all classes; or `vector`, a scale and a bias for each (both of Guo et al.,
            "On Calibration of Modern Neural Networks", arXiv:1706.04599).
        scale: one, or C; the temperature is its inverse.
        bias: none, or C, in nats.
        images: that it was fitted on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["temperature", "vector"]
    scale: tuple[Scale, ...]
    bias: tuple[Offset, ...] = ()
    images: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _has_as_many_as_its_method_says(self) -> Self:
        if self.method == "temperature" and (len(self.scale), len(self.bias)) != (1, 0):
            raise ValueError(
                f"temperature takes one scale and no bias, got {len(self.scale)} and {len(self.bias)}"
            )
        if self.method == "vector" and not len(self.scale) == len(self.bias) > 1:
            raise ValueError(
                f"vector takes a scale and a bias a class, got {len(self.scale)} and {len(self.bias)}"
            )
        return self

    def apply(self, logits: Floats) -> NDArray[np.float64]:
        """Map logits [..., C] to float64 [..., C], of which the softmax is calibrated."""
        scaled: NDArray[np.float64] = np.asarray(logits, np.float64) * np.asarray(self.scale)
        return scaled + np.asarray(self.bias) if self.bias else scaled


class Reject(BaseModel):
    """Which answers are none: those of less confidence than their class's threshold.

    Attributes:
        threshold: least confidence of an answer that counts, for classes that have no threshold of their own.
        by_class: thresholds of single classes, by name.
        wanted: what the thresholds were chosen for, and `level` how much of it: the share of answers that are right
            (precision), or the share of images that are answered (coverage).
        images: that they were chosen on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: Share
    by_class: dict[str, Share] = {}
    wanted: Literal["precision", "coverage"]
    level: Share
    images: Annotated[int, Field(ge=1)]

    def rejects(self, label: str, confidence: float) -> bool:
        """Say whether an answer is none."""
        return not confidence >= self.by_class.get(label, self.threshold)


def log_softmax(logits: Floats) -> NDArray[np.float64]:
    """Return float64 [..., C], the logarithms of the softmax."""
    values = np.asarray(logits, np.float64)
    shifted = values - values.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def softmax(logits: Floats) -> NDArray[np.float64]:
    """Return float64 [..., C] that sum to 1. Thresholds are compared with these very bits, and not with exp(log)."""
    values = np.asarray(logits, np.float64)
    powers: NDArray[np.float64] = np.exp(values - values.max(axis=-1, keepdims=True))
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def fit_temperature(logits: Floats, labels: Integers) -> Calibration:
    """Fit one scale to all logits, so that the labels' mean negative log-likelihood is least.

    Args:
        logits: [N, C] of images that were not trained on.
        labels: [N], 0 to C - 1.

    Raises:
        CalibrationError: wrong shapes, values that are not finite, or answers that are all right: then any larger scale
            fits better still.
    """
    logits, labels = _checked(logits, labels)
    if (logits.argmax(axis=1) == labels).all():
        raise CalibrationError(
            f"all {len(labels)} answers are right, so no temperature fits: more confidence is always better. "
            "Calibrate on more images"
        )
    truth = logits[np.arange(len(labels)), labels]

    def derivatives(scale: Floats) -> _Derivatives:
        log_probabilities = log_softmax(logits * scale)
        probabilities = np.exp(log_probabilities)
        mean = (probabilities * logits).sum(axis=1)
        spread = (probabilities * logits**2).sum(axis=1) - mean**2
        return _Derivatives(
            -log_probabilities[np.arange(len(labels)), labels].mean(),
            np.array([(mean - truth).mean()]),
            np.array([[spread.mean()]]),
        )

    scale = _least(derivatives, np.ones(1), scales=1)
    return Calibration(method="temperature", scale=(float(scale[0]),), images=len(labels))


def fit_vector(logits: Floats, labels: Integers, strength: float = 0.1) -> Calibration:
    """Fit a scale and a bias for each class, drawn to the temperature's by a quadratic penalty.

    With few images a class, 2 C parameters learn the images instead of the network, hence the penalty.

    Args:
        logits: [N, C] of images that were not trained on.
        labels: [N], 0 to C - 1.
        strength: of the penalty, per parameter's squared distance from (temperature's scale, 0) and image.

    Raises:
        CalibrationError: as `fit_temperature`.
    """
    start = fit_temperature(logits, labels).scale[0]
    logits, labels = _checked(logits, labels)
    images, classes = logits.shape
    center = np.concatenate([np.full(classes, start), np.zeros(classes)])
    truth = np.zeros_like(logits)
    truth[np.arange(images), labels] = 1

    def derivatives(parameters: Floats) -> _Derivatives:
        log_probabilities = log_softmax(logits * parameters[:classes] + parameters[classes:])
        probabilities = np.exp(log_probabilities)
        away, off = parameters - center, probabilities - truth
        gradient = np.concatenate([(off * logits).mean(axis=0), off.mean(axis=0)])
        # Of scale and bias of one class with each other, and then of those of different classes.
        joined = np.concatenate([probabilities * logits, probabilities], axis=1)
        curvature = -joined.T @ joined / images
        own, both = np.arange(classes), np.arange(classes) + classes
        curvature[own, own] += (probabilities * logits**2).mean(axis=0)
        curvature[both, both] += probabilities.mean(axis=0)
        mixed = (probabilities * logits).mean(axis=0)
        curvature[own, both] += mixed
        curvature[both, own] += mixed
        return _Derivatives(
            -(log_probabilities * truth).sum(axis=1).mean() + 0.5 * strength * (away**2).sum(),
            gradient + strength * away,
            curvature + strength * np.eye(2 * classes),
        )

    fitted = _least(derivatives, center, scales=classes)
    scale, bias = fitted[:classes], fitted[classes:]
    return Calibration(
        method="vector", scale=tuple(scale.tolist()), bias=tuple(bias.tolist()), images=images
    )


FITS: Mapping[str, Callable[[Floats, Integers], Calibration]] = {
    "temperature": fit_temperature,
    "vector": fit_vector,
}
"""By method."""


def cross_fitted(
    logits: Floats,
    labels: Integers,
    fit: Callable[[Floats, Integers], Calibration],
    seed: int = 0,
    *,
    groups: Integers | None = None,
) -> NDArray[np.float64]:
    """Return probabilities [N, C] of which each was calibrated by a fit on the other half of the images.

    So every image counts in a calibration error, and none is eval_images by what was fitted to it.

    Args:
        logits: [N, C].
        labels: [N], 0 to C - 1.
        fit: one of `FITS`.
        seed: of the halves.
        groups: [N], equal for images that stay in one half, such as a track's frames; None where each is on its own.

    Raises:
        CalibrationError: as `fit`, of one of the halves, which may be without images where there are few groups.
    """
    logits, labels = _checked(logits, labels)
    names, of = np.unique(np.arange(len(labels)) if groups is None else groups, return_inverse=True)
    in_first = np.random.default_rng(seed).permutation(len(names))[of] < len(names) // 2
    halves = np.flatnonzero(in_first), np.flatnonzero(~in_first)
    probabilities = np.empty_like(logits)
    for fitted_on, eval_images in (halves, halves[::-1]):
        calibration = fit(logits[fitted_on], labels[fitted_on])
        probabilities[eval_images] = softmax(calibration.apply(logits[eval_images]))
    return probabilities


class _Derivatives(NamedTuple):
    """Of the mean negative log-likelihood in nats: its value, gradient [P] and curvature [P, P]."""

    loss: float
    gradient: NDArray[np.float64]
    curvature: NDArray[np.float64]


def _least(
    derivatives: Callable[[Floats], _Derivatives], start: Floats, *, scales: int
) -> NDArray[np.float64]:
    """Minimise a convex loss by Newton's method, steps halved until it falls; the first parameters stay above 0."""
    parameters = np.asarray(start, np.float64)
    here = derivatives(parameters)
    for _ in range(_STEPS):
        direction = np.linalg.solve(
            here.curvature + _DAMPING * np.eye(len(parameters)), here.gradient
        )
        size = 1.0
        while size > _SHORTEST:
            tried = parameters - size * direction
            if tried[:scales].min() > 0 and (there := derivatives(tried)).loss < here.loss:
                break
            size /= 2
        else:
            break
        gained, parameters, here = here.loss - there.loss, tried, there
        if gained < _ENOUGH:
            break
    return parameters


def expected_calibration_error(
    confidence: Floats, right: NDArray[np.bool_], bins: int = _BINS
) -> float:
    """Return the mean distance of confidence from the share of right answers, over bins of equal width.

    It is the estimator of Guo et al. (arXiv:1706.04599, equation 3). Of few images it is too large: each bin's share is
    off by chance, and the distance counts to either side.

    Args:
        confidence: [N], 0 to 1.
        right: [N], whether the answer is.
        bins: between 0 and 1.
    """
    confidence = np.asarray(confidence, np.float64)
    if len(confidence) == 0:
        return math.nan
    places = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    sums = np.bincount(places, confidence - right, minlength=bins)
    return float(np.abs(sums).sum() / len(confidence))


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """What is answered, and how much of that is wrong, if answers below each confidence are rejected.

    Attributes:
        thresholds: float64 [T], the confidences that occur, from high to low.
        coverage: float64 [T], the share of images that are answered.
        risk: float64 [T], the share of these answers that are wrong.
    """

    thresholds: NDArray[np.float64]
    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]


def risk_coverage(confidence: Floats, right: NDArray[np.bool_]) -> RiskCoverage:
    """Return the risk-coverage curve (El-Yaniv and Wiener, JMLR 11, 2010) of answers [N]."""
    confidence = np.asarray(confidence, np.float64)
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, wrong = confidence[order], ~np.asarray(right, bool)[order]
    answered = np.arange(1, len(order) + 1)
    last = (
        np.append(sorted_confidence[1:] < sorted_confidence[:-1], True)
        if len(order)
        else np.empty(0, bool)
    )
    return RiskCoverage(
        sorted_confidence[last],
        (answered / max(1, len(order)))[last],
        (np.cumsum(wrong) / answered)[last],
    )


def choose_reject(
    probabilities: Floats,
    labels: Integers,
    classes: Sequence[str],
    *,
    wanted: Literal["precision", "coverage"],
    level: float,
    per_class: bool = False,
    fewest: int = 20,
    answers: Integers | None = None,
) -> Reject:
    """Choose the lowest threshold with a wanted precision, or the highest with a wanted coverage.

    Args:
        probabilities: calibrated, [N, C], of images that were not trained on.
        labels: [N], 0 to C - 1.
        classes: C names.
        wanted: what is to be reached on these images.
        level: of it, above 0 to 1.
        per_class: a threshold for each class that is the answer at least `fewest` times, too, by its own answers.
        fewest: answers of a class that such a threshold takes.
        answers: [N], the classes that are answered; None for the most probable ones, which a vector calibration may
            have made others than the network's own.

    Raises:
        CalibrationError: wrong shapes, or a precision that no threshold reaches.
    """
    probabilities, labels = _checked(probabilities, labels)
    if not 0 < level <= 1:
        raise CalibrationError(f"{wanted} must be above 0 and at most 1, got {level}")
    answers = probabilities.argmax(axis=1) if answers is None else np.asarray(answers)
    confidence = probabilities[np.arange(len(labels)), answers]
    right = answers == labels
    threshold = _threshold(confidence, right, wanted, level)
    by_class = {}
    if per_class:
        for index, name in enumerate(classes):
            chosen = answers == index
            if chosen.sum() >= fewest:
                by_class[name] = _threshold(
                    confidence[chosen], right[chosen], wanted, level, f" for class {name!r}"
                )
    return Reject(
        threshold=threshold, by_class=by_class, wanted=wanted, level=level, images=len(labels)
    )


def _threshold(
    confidence: Floats, right: NDArray[np.bool_], wanted: str, level: float, where: str = ""
) -> float:
    curve = risk_coverage(confidence, right)
    if wanted == "coverage":
        return float(curve.thresholds[np.flatnonzero(curve.coverage >= level)[0]])
    reached = np.flatnonzero(curve.risk <= 1 - level + _ROUNDING)
    if len(reached) == 0:
        raise CalibrationError(
            f"no threshold{where} gives a precision of {level:.1%} on these {len(right)} images; "
            f"the highest is {1 - curve.risk.min():.1%}"
        )
    return float(curve.thresholds[reached[-1]])


def _checked(values: Floats, labels: Integers) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    numbers: NDArray[np.float64] = np.asarray(values, np.float64)
    places = np.asarray(labels)
    if (
        numbers.ndim != 2
        or places.shape != numbers.shape[:1]
        or len(places) == 0
        or numbers.shape[1] < 2
    ):
        raise CalibrationError(
            f"expected values [N, C] and labels [N] of at least one image and two classes, got shapes {numbers.shape} "
            f"and {places.shape}"
        )
    if not np.isfinite(numbers).all():
        raise CalibrationError("a logit or probability is not a finite number")
    if (
        not np.issubdtype(places.dtype, np.integer)
        or places.min() < 0
        or places.max() >= numbers.shape[1]
    ):
        raise CalibrationError(
            f"labels must be whole numbers from 0 to {numbers.shape[1] - 1}, got {places.dtype} from {places.min()} to "
            f"{places.max()}"
        )
    return numbers, places.astype(np.int64)
