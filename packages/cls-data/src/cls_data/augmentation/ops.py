"""Augmentation ops, their stages, and the types of their settings."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from cls_data.augmentation.random_streams import ParamSampler, Values

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
