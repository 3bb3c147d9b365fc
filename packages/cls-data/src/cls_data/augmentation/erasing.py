"""A rectangle of one grey level, as an arm or another player hides a part of a number."""

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator
from torch import Tensor

from cls_data.augmentation.draws import Draws, Parameters, Part, Share, ShareRange, change_some, on_device


def _not_nothing(area: tuple[float, float]) -> tuple[float, float]:
    if area[0] <= 0:
        raise ValueError(f"the smallest area must be over 0, got {area}; probability=0 erases nothing")
    return area


class Erasing(Part):
    """How often and how much is erased.

    Attributes:
        probability: share of the samples from which a rectangle is erased.
        area: smallest and largest area of the rectangle, as a share of the image.
    """

    probability: Share = 0.25
    area: Annotated[ShareRange, AfterValidator(_not_nothing)] = (0.02, 0.1)

    def draw(self, draws: Draws) -> Parameters:
        """Draw a rectangle for each sample, and which samples get theirs."""
        values = [draws.between(*self.area), *(draws.between(0, 1) for _ in range(3)), draws.between(0, 255)]
        return {"chosen": draws.chance(self.probability), "values": np.stack(values, axis=1)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Change float32 [B, 3, H, W] in place."""

        def change(some: Tensor, rows: NDArray[np.int64]) -> Tensor:
            area, ratio, left, top, level = on_device(drawn["values"][rows], images).unbind(1)
            return erase(some, area, ratio=ratio, left=left, top=top, level=level)

        return change_some(images, drawn["chosen"], change)


def erase(images: Tensor, area: Tensor, *, ratio: Tensor, left: Tensor, top: Tensor, level: Tensor) -> Tensor:
    """Return the images with one rectangle of each filled with one grey level.

    Args:
        images: float [B, 3, H, W].
        area: [B], share of the image; 0 erases nothing.
        ratio: [B], 0-1, from twice as high as wide to twice as wide as high.
        left: [B], 0-1, place of the rectangle between the left and the right edge.
        top: [B], likewise from the upper to the lower edge.
        level: [B], 0-255.
    """
    height, width = images.shape[2:]
    stretch = torch.exp2(ratio - 0.5)
    box_width, box_height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    columns = _inside(width, box_width, left)
    rows = _inside(height, box_height, top)
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], level[:, None, None, None], images)


def _inside(length: int, size: Tensor, place: Tensor) -> Tensor:
    centres = (torch.arange(length, device=size.device) + 0.5) / length
    start = (place * (1 - size))[:, None]
    return (centres >= start) & (centres < start + size[:, None])
