"""Brightness, contrast and saturation as one matrix."""

import numpy as np
import torch
from torch import Tensor

from cls_data.augmentation.draws import Draws, Parameters, Part, Share, Values, on_device

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G, B; ITU-R BT.601, as in Pillow's conversion to "L"."""


class Colour(Part):
    """How far colours are changed.

    Attributes:
        brightness: largest change of the factor 1 that all levels are multiplied by.
        contrast: likewise, of the distance from the image's mean luma.
        saturation: likewise, of the distance from grey.
        grey: share of the samples that lose all colour.
    """

    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    grey: Share = 0.0

    def draw(self, draws: Draws) -> Parameters:
        """Draw a factor of each kind for each sample."""
        saturation = 1 + draws.around_zero(self.saturation)
        return {
            "brightness": 1 + draws.around_zero(self.brightness),
            "contrast": 1 + draws.around_zero(self.contrast),
            "saturation": np.where(draws.chance(self.grey), np.float32(0), saturation),
        }

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Change float32 [B, 3, H, W]."""
        return recolour(images, **drawn)


def recolour(images: Tensor, *, brightness: Values, contrast: Values, saturation: Values) -> Tensor:
    """Change saturation, then contrast about the mean luma, then brightness, as one matrix and one offset.

    Takes float [B, 3, H, W] in 0-255 and factors [B], 1 meaning no change. Levels are clamped once, at the end.
    """
    luma, kept = np.tile(np.array(LUMA, np.float32), (3, 1)), saturation[:, None, None]
    matrix = (contrast * brightness)[:, None, None] * (kept * np.eye(3, dtype=np.float32) + (1 - kept) * luma)
    # The offset is this times the image's mean of R, G, B, which only the device knows.
    to_offset = ((1 - contrast) * brightness)[:, None, None] * luma
    both = on_device(np.stack([matrix, to_offset]), images)
    flat = images.flatten(2)
    offset = both[1] @ flat.mean(dim=2, keepdim=True)
    return torch.baddbmm(offset, both[0], flat).clamp_(0, 255).view_as(images)
