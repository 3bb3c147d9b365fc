"""Calibration of logits and rejection of uncertain predictions.

Inference applies them; `cls_report.statistics` fits them. Shapes: C classes.
"""

from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Floats = NDArray[np.floating[Any]]
Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Offset = Annotated[float, Field(allow_inf_nan=False)]


class Calibration(BaseModel):
    """A scaling of logits: the calibrated probabilities are softmax(scale * logits + bias).

    The logits of the ONNX file are not scaled. Both methods are from Guo et al., "On Calibration of
    Modern Neural Networks", arXiv:1706.04599.

    Attributes:
        method: `temperature` has one scale; `vector` has a scale and a bias for each class.
        scale: 1 or C numbers; the temperature is 1 / scale.
        bias: 0 or C numbers, in nats.
        images: Number of images that it was fitted on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["temperature", "vector"]
    scale: tuple[Scale, ...]
    bias: tuple[Offset, ...] = ()
    images: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        scales, biases = len(self.scale), len(self.bias)
        if self.method == "temperature" and (scales, biases) != (1, 0):
            raise ValueError(f"temperature needs one scale and no bias, got {scales} and {biases}")
        if self.method == "vector" and (scales < 2 or scales != biases):
            raise ValueError(
                f"vector needs a scale and a bias for each class, got {scales} and {biases}"
            )
        return self

    def apply(self, logits: Floats) -> NDArray[np.float64]:
        """Return scaled logits, whose softmax is calibrated: float64 [..., C]."""
        scale = np.asarray(self.scale)
        scaled: NDArray[np.float64] = np.asarray(logits, np.float64) * scale
        if self.bias:
            scaled += np.asarray(self.bias)
        return scaled


class Reject(BaseModel):
    """Confidence thresholds below which a prediction is rejected.

    Attributes:
        threshold: The smallest accepted confidence, for classes without their own threshold.
        by_class: Thresholds of single classes, by name.
        wanted: What the thresholds were chosen for: the share of accepted predictions that are
            correct (precision), or the share of images with an accepted prediction (coverage).
        level: The required precision or coverage.
        images: Number of images that they were chosen on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: Share
    by_class: dict[str, Share] = {}
    wanted: Literal["precision", "coverage"]
    level: Share
    images: Annotated[int, Field(ge=1)]

    def rejects(self, label: str, confidence: float) -> bool:
        """Return whether a prediction is rejected. NaN is always rejected."""
        threshold = self.by_class.get(label, self.threshold)
        return not confidence >= threshold


def log_softmax(logits: Floats) -> NDArray[np.float64]:
    """Return the logarithm of the softmax: float64 [..., C]."""
    values = np.asarray(logits, np.float64)
    shifted = values - values.max(axis=-1, keepdims=True)
    totals = np.exp(shifted).sum(axis=-1, keepdims=True)
    log_probabilities: NDArray[np.float64] = shifted - np.log(totals)
    return log_probabilities


def softmax(logits: Floats) -> NDArray[np.float64]:
    """Return the softmax: float64 [..., C].

    Thresholds are compared with exactly these values, which exp(log_softmax) may not reproduce.
    """
    values = np.asarray(logits, np.float64)
    shifted = values - values.max(axis=-1, keepdims=True)
    powers: NDArray[np.float64] = np.exp(shifted)
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers
