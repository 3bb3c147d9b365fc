"""Gaussian blur and downscaling as matrices: a separable filter is one matrix per image axis."""

import functools
import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cls_data.augmentation.ops import (
    AugmentationOp,
    AugmentationStage,
    OpParameters,
    PositiveRange,
    Share,
    change_selected,
    move_to_device,
)
from cls_data.augmentation.random_streams import ParamSampler, Values

_NUM_SCALES = 16
"""Number of sizes of downscaled images; the matrices of each are cached."""


class GaussianBlur(AugmentationOp):
    """Blurs images like an out-of-focus lens.

    Attributes:
        probability: Probability of blurring a sample.
        sigma: Minimum and maximum standard deviation, as a share of the image's mean side.
    """

    stage: ClassVar[AugmentationStage] = AugmentationStage.BLUR

    probability: Share = 0.2
    sigma: PositiveRange = (0.004, 0.02)

    def draw(self, sampler: ParamSampler) -> OpParameters:
        """Draw which samples to blur, and by how much."""
        return {
            "selected": sampler.bernoulli(self.probability),
            "sigma": sampler.log_uniform(*self.sigma),
        }

    def apply(self, images: Tensor, params: OpParameters) -> Tensor:
        """Change float32 [B, 3, H, W] in place."""
        height, width = images.shape[2:]
        sigma = params["sigma"] * (height + width) / 2
        return change_selected(
            images,
            params["selected"],
            gaussian_blur,
            sigma=sigma,
        )


def gaussian_blur(images: Tensor, sigma: Values) -> Tensor:
    """Blur with a Gaussian that is cut off at three standard deviations; edges are mirrored.

    Takes float [B, 3, H, W] and standard deviations [B] in pixels, at least 0.05.
    """
    height, width = images.shape[2:]
    reach = math.ceil(3 * sigma.max())
    radius = min(reach, height - 1, width - 1)

    offsets = np.arange(-radius, radius + 1, dtype=np.float32)
    deviations = offsets / sigma[:, None]
    weights = np.exp(-0.5 * deviations**2)
    weights /= weights.sum(axis=1, keepdims=True)

    kernels = move_to_device(weights, images)
    rows = _blur_matrices(kernels, height)
    columns = _blur_matrices(kernels, width)
    return filter_separably(images, rows, columns)


def downscale_and_back(images: Tensor, shares: Values) -> Tensor:
    """Downscale with antialiasing, then upscale to the original size, both bilinearly.

    Takes float [B, 3, H, W] and [B], relative side lengths of the small images: over 0 to 1,
    rounded to multiples of 1 / `_NUM_SCALES`.
    """
    height, width = images.shape[2:]
    steps = np.clip(np.round(shares * _NUM_SCALES), 1, _NUM_SCALES)
    numbers = steps.astype(np.int64) - 1
    index = move_to_device(numbers, images)
    rows = _downscale_matrices(height, images.device).index_select(0, index)
    columns = _downscale_matrices(width, images.device).index_select(0, index)
    return filter_separably(images, rows, columns)


def filter_separably(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return `rows @ image @ columns.T` for each channel: rows [B, H, H], columns [B, W, W]."""
    lines = images.flatten(1, 2)
    filtered = torch.bmm(lines, columns.transpose(1, 2))
    filtered = filtered.view_as(images)
    return torch.matmul(rows[:, None], filtered)


def _blur_matrices(kernels: Tensor, length: int) -> Tensor:
    """Return float [B, length, length] that convolve a line with kernels [B, 2 radius + 1]."""
    radius = kernels.shape[1] // 2
    shifts = _mirrored_shifts(length, radius, kernels.device)
    matrices = kernels @ shifts.flatten(1)
    return matrices.view(-1, length, length)


@functools.lru_cache(maxsize=8)
def _mirrored_shifts(length: int, radius: int, device: torch.device) -> Tensor:
    """Return float [2 radius + 1, length, length] that shift a line by -radius to radius."""
    padded = torch.eye(length)[None]
    if radius:
        padded = functional.pad(padded, (radius, radius), mode="reflect")
    # Row i of the mirrored identity, cropped from offset d on, is 1 at the source of pixel i + d.
    windows = padded[0].unfold(1, length, 1)
    shifts = windows.permute(1, 2, 0)
    return shifts.contiguous().to(device)


@functools.lru_cache(maxsize=16)
def _downscale_matrices(length: int, device: torch.device) -> Tensor:
    """Return float [_NUM_SCALES, length, length]: downscaling to each scale and back."""
    matrices = []
    for step in range(1, _NUM_SCALES + 1):
        small = max(1, round(length * step / _NUM_SCALES))
        down = functional.interpolate(
            torch.eye(length)[None, None],
            (small, length),
            mode="bilinear",
            antialias=True,
        )

        up = functional.interpolate(
            torch.eye(small)[None, None],
            (length, small),
            mode="bilinear",
        )

        matrices.append(up[0, 0] @ down[0, 0])
    return torch.stack(matrices).to(device)
