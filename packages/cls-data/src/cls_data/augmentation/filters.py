"""Blur and rescaling as matrices: a separable linear filter is one matrix for the rows and one for the columns."""

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cls_data.augmentation.params import (
    AugmentationOp,
    Parameters,
    ParamSampler,
    PositiveRange,
    Share,
    Values,
    change_some,
    on_device,
)


class Blur(AugmentationOp):
    """Gaussian blur, as of a lens out of focus.

    Attributes:
        probability: share of the samples that are blurred.
        sigma: smallest and largest standard deviation, as a share of the image's mean side.
    """

    probability: Share = 0.2
    sigma: PositiveRange = (0.004, 0.02)

    def draw(self, draws: ParamSampler) -> Parameters:
        """Draw how much each sample is blurred, and which are."""
        return {"chosen": draws.chance(self.probability), "sigma": draws.factor(*self.sigma)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Change float32 [B, 3, H, W] in place."""
        sigma = drawn["sigma"] * (images.shape[2] + images.shape[3]) / 2
        return change_some(
            images, drawn["chosen"], lambda some, rows: gaussian_blur(some, sigma[rows])
        )


def gaussian_blur(images: Tensor, sigma: Values) -> Tensor:
    """Blur float [B, 3, H, W] by a Gaussian, cut off at three standard deviations; edges are mirrored.

    Args:
        images: float [B, 3, H, W].
        sigma: [B], standard deviations in pixels, at least 0.05.
    """
    height, width = images.shape[2:]
    radius = min(int(np.ceil(3 * sigma.max())), height - 1, width - 1)
    offsets = np.arange(-radius, radius + 1, dtype=np.float32)
    weights = np.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernels = on_device(weights / weights.sum(axis=1, keepdims=True), images)
    rows, columns = (
        (kernels @ _mirrored_shifts(length, radius, images.device).flatten(1)).view(
            -1, length, length
        )
        for length in (height, width)
    )
    return filter_separably(images, rows, columns)


def downscale_and_back(images: Tensor, shares: Values, levels: int = 16) -> Tensor:
    """Shrink float [B, 3, H, W], antialiased, and enlarge it again, both bilinearly: what a small copy has lost.

    Args:
        images: float [B, 3, H, W].
        shares: [B], of the sides that the small copy has; over 0 to 1, taken in steps of 1 / levels.
        levels: number of sizes, each of which is prepared once.
    """
    steps = on_device(np.clip(np.round(shares * levels), 1, levels).astype(np.int64) - 1, images)
    rows, columns = (
        _shrinking(length, levels, images.device).index_select(0, steps)
        for length in images.shape[2:]
    )
    return filter_separably(images, rows, columns)


def filter_separably(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return `rows @ image @ columns.T` for every channel: [B, H, H], [B, 3, H, W], [B, W, W] to [B, 3, H, W]."""
    across = torch.bmm(images.flatten(1, 2), columns.transpose(1, 2)).view_as(images)
    return torch.matmul(rows[:, None], across)


@functools.lru_cache(maxsize=8)
def _mirrored_shifts(length: int, radius: int, device: torch.device) -> Tensor:
    """Return float [2 radius + 1, length, length]: matrices that move a line by -radius to radius places."""
    line = torch.eye(length)[None]
    padded = functional.pad(line, (radius, radius), mode="reflect") if radius else line
    # Row i of the identity, mirrored and cut out from offset d on, is 1 where place i + d is taken from.
    return torch.stack(
        [padded[0, :, start : start + length].T for start in range(2 * radius + 1)]
    ).to(device)


@functools.lru_cache(maxsize=16)
def _shrinking(length: int, levels: int, device: torch.device) -> Tensor:
    """Return float [levels, length, length]: what is left of a line after 1 / levels, 2 / levels, … of its pixels."""
    identity = torch.eye(length)[None, None]
    matrices = []
    for level in range(1, levels + 1):
        small = max(1, round(length * level / levels))
        down = functional.interpolate(identity, (small, length), mode="bilinear", antialias=True)[
            0, 0
        ]
        up = functional.interpolate(torch.eye(small)[None, None], (length, small), mode="bilinear")[
            0, 0
        ]
        matrices.append(up @ down)
    return torch.stack(matrices).to(device)
