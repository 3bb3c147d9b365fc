"""Augmentation ops and the random streams they draw their parameters from."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

Values = NDArray[np.floating[Any]]
OpParameters = dict[str, NDArray[Any]]
"""Drawn parameters by name; the first axis of each array is the sample."""


def check_range(bounds: tuple[float, float]) -> tuple[float, float]:
    """Reject a (minimum, maximum) pair whose minimum exceeds its maximum."""
    if not bounds[0] <= bounds[1]:
        raise ValueError(f"expected (minimum, maximum), got {bounds}")
    return bounds


Share = Annotated[float, Field(ge=0, le=1)]
ShareRange = Annotated[tuple[Share, Share], AfterValidator(check_range)]
Positive = Annotated[float, Field(gt=0)]
PositiveRange = Annotated[tuple[Positive, Positive], AfterValidator(check_range)]


class ParamSampler:
    """Draws parameters for the B samples of a batch from one named random stream.

    Every op has its own stream of the batch's seed, so adding, removing, or changing an op does not
    affect the parameters of another one. Results are NumPy arrays, because an operation on 64
    numbers takes PyTorch five times as long.
    """

    def __init__(self, num_samples: int, seed: int, stream: str) -> None:
        self._num_samples = num_samples
        stream_number = int.from_bytes(stream.encode(), "little")
        self._rng = np.random.default_rng((seed, stream_number))

    def uniform(self, low: float, high: float, shape: tuple[int, ...] = ()) -> Values:
        """Draw float32 [B, *shape] between low and high."""
        size = (self._num_samples, *shape)
        values: Values = self._rng.random(size, np.float32)
        values *= np.float32(high - low)
        values += np.float32(low)
        return values

    def symmetric(self, limit: float) -> Values:
        """Draw float32 [B] between -limit and limit."""
        return self.uniform(-limit, limit)

    def log_uniform(self, low: float, high: float) -> Values:
        """Draw float32 [B], uniform on a log scale: halving is as likely as doubling."""
        exponents = self.uniform(math.log(low), math.log(high))
        return np.exp(exponents)

    def bernoulli(self, probability: float) -> NDArray[np.bool_]:
        """Draw bool [B], true with the given probability."""
        return self.uniform(0, 1) < probability

    def beta(self, alpha: float) -> Values:
        """Draw float32 [B] from Beta(alpha, alpha)."""
        values = self._rng.beta(alpha, alpha, self._num_samples)
        return values.astype(np.float32)

    def permutation(self) -> NDArray[np.int64]:
        """Draw a permutation of the samples: int64 [B]."""
        return self._rng.permutation(self._num_samples)

    def seeds(self) -> NDArray[np.int64]:
        """Draw int64 [B], seeds for other generators."""
        return self._rng.integers(2**62, size=self._num_samples)


class AugmentationStage(IntEnum):
    """Order of the ops in a pipeline; ops of one stage run in the order they are declared."""

    GEOMETRY = 0
    COLOR = 1
    BLUR = 2
    DEGRADATION = 3
    OCCLUSION = 4


class AugmentationSettings(BaseModel):
    """Base of all settings: frozen, finite, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AugmentationOp(AugmentationSettings, ABC):
    """One op of a pipeline: draws parameters for a whole batch, then changes the images.

    A subclass overrides `matrices`, if it moves pixels, or `apply`, if it changes them, or both.
    A sample whose parameters ask for no change must stay bit-identical.
    """

    stage: ClassVar[AugmentationStage] = AugmentationStage.OCCLUSION
    """When the op runs: last, unless a subclass sets another stage."""

    @abstractmethod
    def draw(self, sampler: ParamSampler) -> OpParameters:
        """Draw the parameters of every sample.

        Call the same methods of the sampler whatever the settings are, so that changing one
        setting leaves the draws of the others unchanged.
        """

    def matrices(self, params: OpParameters, aspect: float) -> Values | None:
        """Return float32 [B, 3, 3] for `geometry.resample`, or None if the op moves no pixels.

        The matrices of all ops are multiplied, and images are resampled once, before any `apply`.
        `aspect` is the width of the images divided by their height.
        """
        return None

    def apply(self, images: Tensor, params: OpParameters) -> Tensor:
        """Return changed images: float32 [B, 3, H, W] in 0-255. May change the input in place.

        On a CPU, a large batch arrives in several chunks with their rows of the parameters.
        """
        return images


def move_to_device(values: NDArray[Any], images: Tensor) -> Tensor:
    """Copy an array to the device of the images without blocking the host."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if images.device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(images.device, non_blocking=True)


def change_selected(
    images: Tensor,
    selected: NDArray[np.bool_],
    change: Callable[..., Tensor],
    **params: NDArray[Any],
) -> Tensor:
    """Change the selected images, in place if they are not all selected, and return all images.

    Args:
        images: float32 [B, 3, H, W].
        selected: bool [B], on the CPU: the host need not wait for the device to count them.
        change: Maps images and their parameters to changed images.
        params: Keyword arguments of `change`; the first axis of each array is the sample.
    """
    rows = np.flatnonzero(selected)
    if len(rows) == 0:
        return images
    if len(rows) == len(images):
        return change(images, **params)
    index = move_to_device(rows, images)
    chosen = images.index_select(0, index)
    chosen_params = {name: values[rows] for name, values in params.items()}
    changed = change(chosen, **chosen_params)
    return images.index_copy_(0, index, changed)
