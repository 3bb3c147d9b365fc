"""Random draws for the samples of a batch, and the settings that bound them."""

import math
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

Share = Annotated[float, Field(ge=0, le=1)]
Values = NDArray[np.floating[Any]]
Parameters = dict[str, NDArray[Any]]
"""What was drawn for the samples of a batch; the first axis of each array counts the samples."""


def ascending(span: tuple[float, float]) -> tuple[float, float]:
    """Refuse a span whose first number is the larger one."""
    if not span[0] <= span[1]:
        raise ValueError(f"expected (smallest, largest), got {span}")
    return span


Positive = Annotated[float, Field(gt=0)]
PositiveRange = Annotated[tuple[Positive, Positive], AfterValidator(ascending)]
ShareRange = Annotated[tuple[Share, Share], AfterValidator(ascending)]


class AugmentationOp(BaseModel):
    """Settings of one part of a recipe.

    A part draws for a whole batch, then changes the images a few at a time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ParamSampler:
    """ParamSampler for B samples. They are numpy's arrays: an operation on 64 numbers costs PyTorch five times as much.

    Args:
        samples: B.
        generator: of the CPU; where it stands afterwards depends on the calls made, and not on the values drawn.
    """

    def __init__(self, samples: int, generator: torch.Generator) -> None:
        self.samples = samples
        self._generator = generator

    def between(self, low: float, high: float) -> Values:
        """Draw float32 [B], evenly from low to high."""
        drawn: Values = torch.rand(self.samples, generator=self._generator).numpy()
        return drawn * np.float32(high - low) + np.float32(low)

    def around_zero(self, largest: float) -> Values:
        """Draw float32 [B], evenly from -largest to largest."""
        return self.between(-largest, largest)

    def factor(self, low: float, high: float) -> Values:
        """Draw float32 [B], evenly on a logarithmic scale, so that halving is as likely as doubling."""
        return np.exp(self.between(math.log(low), math.log(high)))

    def chance(self, share: float) -> NDArray[np.bool_]:
        """Draw bool [B], true for about that share of the samples."""
        return self.between(0, 1) < share

    def corners(self, largest: float) -> Values:
        """Draw float32 [B, 4, 2], evenly from 0 to largest."""
        drawn: Values = torch.rand(self.samples, 4, 2, generator=self._generator).numpy()
        return drawn * np.float32(largest)

    def seeds(self) -> NDArray[np.int64]:
        """Draw int64 [B], seeds for other generators."""
        seeds: NDArray[np.int64] = torch.randint(
            2**62, (self.samples,), generator=self._generator
        ).numpy()
        return seeds


def on_device(values: NDArray[Any], images: Tensor) -> Tensor:
    """Move drawn values to where the images lie, without waiting for the device."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return (
        tensor
        if images.device.type == "cpu"
        else tensor.pin_memory().to(images.device, non_blocking=True)
    )


def change_some(
    images: Tensor, chosen: NDArray[np.bool_], change: Callable[[Tensor, NDArray[np.int64]], Tensor]
) -> Tensor:
    """Change the chosen images in place, and return all.

    Args:
        images: float32 [B, 3, H, W].
        chosen: bool [B]; known on the CPU, so that nobody waits for the device to learn how many there are.
        change: maps the chosen images, and their rows (int64), to changed ones.
    """
    rows = np.flatnonzero(chosen)
    if len(rows) == 0:
        return images
    if len(rows) == len(images):
        return change(images, rows)
    places = on_device(rows, images)
    return images.index_copy_(0, places, change(images.index_select(0, places), rows))
