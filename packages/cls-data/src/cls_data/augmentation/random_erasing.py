"""Random erasing: a rectangle of one gray level, like an arm or another player in front."""

from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator
from torch import Tensor

from cls_data.augmentation.ops import (
    AugmentationOp,
    AugmentationStage,
    OpParameters,
    Share,
    ShareRange,
    change_selected,
    move_to_device,
)
from cls_data.augmentation.random_streams import ParamSampler, Values


def _check_positive(area: tuple[float, float]) -> tuple[float, float]:
    if area[0] <= 0:
        raise ValueError(
            f"expected a minimum area over 0, got {area}; use probability=0 to erase nothing"
        )
    return area


class RandomErasing(AugmentationOp):
    """Fills a random rectangle of an image with a random gray level.

    Attributes:
        probability: Probability of erasing a rectangle from a sample.
        area: Minimum and maximum area of the rectangle, as a share of the image.
    """

    stage: ClassVar[AugmentationStage] = AugmentationStage.OCCLUSION

    probability: Share = 0.25
    area: Annotated[ShareRange, AfterValidator(_check_positive)] = (0.02, 0.1)

    def draw(self, sampler: ParamSampler) -> OpParameters:
        """Draw a rectangle for each sample, and which samples to change."""
        return {
            "area": sampler.uniform(*self.area),
            "ratio": sampler.uniform(0, 1),
            "left": sampler.uniform(0, 1),
            "top": sampler.uniform(0, 1),
            "level": sampler.uniform(0, 255),
            "selected": sampler.bernoulli(self.probability),
        }

    def apply(self, images: Tensor, params: OpParameters) -> Tensor:
        """Change float32 [B, 3, H, W] in place."""
        return change_selected(
            images,
            params["selected"],
            erase,
            area=params["area"],
            ratio=params["ratio"],
            left=params["left"],
            top=params["top"],
            level=params["level"],
        )


def erase(
    images: Tensor, *, area: Values, ratio: Values, left: Values, top: Values, level: Values
) -> Tensor:
    """Return the images with one rectangle of each filled with one gray level.

    Args:
        images: float [B, 3, H, W].
        area: [B], share of the image; 0 erases nothing.
        ratio: [B], 0-1, from twice as high as wide to twice as wide as high.
        left: [B], 0-1, position of the rectangle between the left and the right edge.
        top: [B], 0-1, position of the rectangle between the top and the bottom edge.
        level: [B], 0-255.
    """
    height, width = images.shape[2:]
    stretch = np.exp2(ratio - 0.5)
    side = np.sqrt(area)

    # Computed on the host and copied once: on a GPU, these few numbers would take a dozen kernels,
    # each slower to launch than to run.
    row_masks = _interval_masks(height, side / stretch, top)
    column_masks = _interval_masks(width, side * stretch, left)
    masks = np.concatenate([row_masks, column_masks], axis=1)
    inside = move_to_device(masks, images)

    rows = inside[:, None, :height, None]
    columns = inside[:, None, None, height:]
    fill = move_to_device(level, images)
    return torch.where(rows & columns, fill[:, None, None, None], images)


def _interval_masks(length: int, size: Values, position: Values) -> NDArray[np.bool_]:
    """Return bool [B, length]: which pixel centers of a line lie inside an interval."""
    size = np.minimum(size, 1)
    start = position * (1 - size)
    end = start + size
    pixels = np.arange(length, dtype=np.float32)
    centers = (pixels + 0.5) / length
    is_after_start = centers >= start[:, None]
    is_before_end = centers < end[:, None]
    return is_after_start & is_before_end
