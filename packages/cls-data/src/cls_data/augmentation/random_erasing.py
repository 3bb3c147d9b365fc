"""A rectangle of one gray level, as an arm or another player hides a part of a number."""

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator
from torch import Tensor

from cls_data.augmentation.params import (
    AugmentationOp,
    Parameters,
    ParamSampler,
    Share,
    ShareRange,
    Values,
    change_some,
    on_device,
)


def _not_nothing(area: tuple[float, float]) -> tuple[float, float]:
    if area[0] <= 0:
        raise ValueError(
            f"the smallest area must be over 0, got {area}; probability=0 erases nothing"
        )
    return area


class RandomErasing(AugmentationOp):
    """How often and how much is erased.

    Attributes:
        probability: share of the samples from which a rectangle is erased.
        area: smallest and largest area of the rectangle, as a share of the image.
    """

    probability: Share = 0.25
    area: Annotated[ShareRange, AfterValidator(_not_nothing)] = (0.02, 0.1)

    def draw(self, draws: ParamSampler) -> Parameters:
        """Draw a rectangle for each sample, and which samples get theirs."""
        values = [
            draws.between(*self.area),
            *(draws.between(0, 1) for _ in range(3)),
            draws.between(0, 255),
        ]
        return {"chosen": draws.chance(self.probability), "values": np.stack(values, axis=1)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Change float32 [B, 3, H, W] in place."""

        def change(some: Tensor, rows: NDArray[np.int64]) -> Tensor:
            area, ratio, left, top, level = drawn["values"][rows].T
            return erase(some, area, ratio=ratio, left=left, top=top, level=level)

        return change_some(images, drawn["chosen"], change)


def erase(
    images: Tensor, area: Values, *, ratio: Values, left: Values, top: Values, level: Values
) -> Tensor:
    """Return the images with one rectangle of each filled with one gray level.

    Args:
        images: float [B, 3, H, W].
        area: [B], share of the image; 0 erases nothing.
        ratio: [B], 0-1, from twice as high as wide to twice as wide as high.
        left: [B], 0-1, place of the rectangle between the left and the right edge.
        top: [B], likewise from the upper to the lower edge.
        level: [B], 0-255.
    """
    height, width = images.shape[2:]
    stretch, side = np.exp2(ratio - 0.5), np.sqrt(area)
    # Found here and moved once: on a GPU these few numbers cost a dozen kernels, each longer to start than to run.
    inside = np.concatenate(
        [_inside(height, side / stretch, top), _inside(width, side * stretch, left)], axis=1
    )
    boxes = on_device(inside, images)
    rows, columns = boxes[:, :height], boxes[:, height:]
    filling = on_device(level, images)[:, None, None, None]
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], filling, images)


def _inside(length: int, size: Values, place: Values) -> NDArray[np.bool_]:
    size = np.minimum(size, 1)[:, None]
    centers = (np.arange(length, dtype=np.float32) + 0.5) / length
    start = place[:, None] * (1 - size)
    inside: NDArray[np.bool_] = (centers >= start) & (centers < start + size)
    return inside
