"""Random brightness, contrast, and saturation."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cls_data.augmentation.ops import (
    AugmentationOp,
    AugmentationStage,
    OpParameters,
    Share,
    change_selected,
    move_to_device,
)
from cls_data.augmentation.random_streams import ParamSampler, Values

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G, B (ITU-R BT.601), as in Pillow's conversion to "L"."""


class ColorJitter(AugmentationOp):
    """Changes brightness, contrast, and saturation by random factors around 1.

    Attributes:
        brightness: Largest deviation of the factor that scales all levels.
        contrast: Largest deviation of the factor that scales the distance from the mean luma.
        saturation: Largest deviation of the factor that scales the distance from gray.
        gray: Probability of removing all color.
    """

    stage: ClassVar[AugmentationStage] = AugmentationStage.COLOR

    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    gray: Share = 0.0

    def draw(self, sampler: ParamSampler) -> OpParameters:
        """Draw a factor of each kind for each sample."""
        brightness = 1 + sampler.symmetric(self.brightness)
        contrast = 1 + sampler.symmetric(self.contrast)
        saturation = 1 + sampler.symmetric(self.saturation)
        is_gray = sampler.bernoulli(self.gray)
        saturation[is_gray] = 0
        return {
            "brightness": brightness,
            "contrast": contrast,
            "saturation": saturation,
        }

    def apply(self, images: Tensor, params: OpParameters) -> Tensor:
        """Change float32 [B, 3, H, W], in place or not."""
        factors = np.stack(list(params.values()))
        is_changed = (factors != 1).any(axis=0)
        return change_selected(images, is_changed, adjust_color, **params)


def adjust_color(
    images: Tensor, *, brightness: Values, contrast: Values, saturation: Values
) -> Tensor:
    """Change saturation, then contrast about the mean luma, then brightness, in one pass.

    Takes float [B, 3, H, W] in 0-255 and factors [B]; 1 means no change. Levels are clamped once,
    at the end.
    """
    # Each level becomes a weighted sum of itself, the luma of its pixel, and the mean luma of the
    # image, which a change of contrast leaves unchanged.
    gain = contrast * brightness
    weights = np.stack(
        [
            gain * saturation,
            gain * (1 - saturation),
            (1 - contrast) * brightness,
        ]
    )
    own, gray, mean = move_to_device(weights, images)[:, :, None, None]
    # Not a matrix product: with three channels, that is the slowest kernel of the augmentation on
    # a GPU.
    luma = images[:, 0] * LUMA[0]
    luma.add_(images[:, 1], alpha=LUMA[1])
    luma.add_(images[:, 2], alpha=LUMA[2])

    mean_luma = luma.mean(dim=(1, 2), keepdim=True)
    common = torch.addcmul(mean * mean_luma, luma, gray)
    adjusted = torch.addcmul(common[:, None], images, own[:, None])
    return adjusted.clamp_(0, 255)
