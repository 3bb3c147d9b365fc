"""Brightness, contrast and saturation at once."""

import numpy as np
import torch
from torch import Tensor

from cls_data.augmentation.params import (
    AugmentationOp,
    Parameters,
    ParamSampler,
    Share,
    Values,
    on_device,
)

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G, B; ITU-R BT.601, as in Pillow's conversion to "L"."""


class ColorJitter(AugmentationOp):
    """How far colors are changed.

    Attributes:
        brightness: largest change of the factor 1 that all levels are multiplied by.
        contrast: likewise, of the distance from the image's mean luma.
        saturation: likewise, of the distance from gray.
        gray: share of the samples that lose all color.
    """

    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    gray: Share = 0.0

    def draw(self, draws: ParamSampler) -> Parameters:
        """Draw a factor of each kind for each sample."""
        saturation = 1 + draws.around_zero(self.saturation)
        return {
            "brightness": 1 + draws.around_zero(self.brightness),
            "contrast": 1 + draws.around_zero(self.contrast),
            "saturation": np.where(draws.chance(self.gray), np.float32(0), saturation),
        }

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Change float32 [B, 3, H, W]."""
        return adjust_color(images, **drawn)


def adjust_color(
    images: Tensor, *, brightness: Values, contrast: Values, saturation: Values
) -> Tensor:
    """Change saturation, then contrast about the mean luma, then brightness, in one pass over the images.

    Takes float [B, 3, H, W] in 0-255 and factors [B], 1 meaning no change. Levels are clamped once, at the end.
    """
    # Of the level itself, of its pixel's luma and of the image's mean luma, which contrast leaves where it is.
    shares = np.stack(
        [contrast * brightness * saturation, contrast * brightness * (1 - saturation)]
    )
    own, gray, mean = on_device(np.stack([*shares, (1 - contrast) * brightness]), images)[
        :, :, None, None
    ]
    # Not as a product of matrices: for three channels that is the slowest kernel of a GPU's augmentation.
    luma = images[:, 0] * LUMA[0]
    luma.add_(images[:, 1], alpha=LUMA[1]).add_(images[:, 2], alpha=LUMA[2])
    common = torch.addcmul(mean * luma.mean(dim=(1, 2), keepdim=True), luma, gray)
    return torch.addcmul(common[:, None], images, own[:, None]).clamp_(0, 255)
