"""What a JPEG file loses, for whole batches: the arithmetic of libjpeg (ITU-T T.81) without the entropy coding.

As Pillow writes by default: chroma at half the resolution, the standard's tables scaled by libjpeg's rule.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cls_data.augmentation.draws import Values, on_device
from cls_data.resize import resize

_LUMA_TABLE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
"""ITU-T T.81, table K.1, row by row."""
_CHROMA_TABLE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32,
)  # fmt: skip
"""ITU-T T.81, table K.2."""

_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
"""Both from the JFIF specification; chroma is centred on 0 here, on 128 in a file."""


def compress(images: Tensor, quality: Values) -> Tensor:
    """Return float [B, 3, H, W] in 0-255 as it comes back from JPEG files.

    Args:
        images: float [B, 3, H, W] in 0-255.
        quality: [B], 1-100 as in Pillow.
    """
    height, width = images.shape[2:]
    right, below = -width % 16, -height % 16
    padded = functional.pad(images, (0, right, 0, below), mode="replicate") if right or below else images
    forth, back = _colour_matrices(images.device)
    ycc = torch.matmul(forth, padded.round().flatten(2)).view_as(padded).round_()
    luma, chroma = ycc[:, :1], _halved(ycc[:, 1:])
    luma_table, chroma_table = on_device(_tables(quality), images)
    luma = _quantise(luma - 128, luma_table).add_(128).clamp_(0, 255)
    chroma = _quantise(chroma.round_(), chroma_table).clamp_(-128, 127)
    # libjpeg's "fancy" upsampling weighs the four nearest by 9, 3, 3, 1 sixteenths, which is bilinear.
    chroma = resize(chroma, (padded.shape[2], padded.shape[3]))
    rgb = torch.matmul(back, torch.cat([luma, chroma], dim=1).flatten(2)).round_().clamp_(0, 255)
    return rgb.view_as(padded)[:, :, :height, :width]


def _halved(planes: Tensor) -> Tensor:
    """Return the means of 2x2 places of [B, C, H, W]: [B, C, H / 2, W / 2]."""
    upper, lower = planes[:, :, ::2], planes[:, :, 1::2]
    rows = upper + lower
    return (rows[..., ::2] + rows[..., 1::2]).mul_(0.25)


def _quantise(planes: Tensor, table: Tensor) -> Tensor:
    """Transform [B, C, H, W] in 8x8 blocks, round to multiples of the table [B, 64], and transform back."""
    batch, channels, height, width = planes.shape
    cosines = _cosines(planes.device)
    blocks = planes.view(batch, channels, height // 8, 8, width // 8, 8).permute(0, 1, 2, 4, 3, 5)
    steps = table[:, None]
    coefficients = (blocks.reshape(batch, -1, 64) @ cosines.T).div_(steps).round_().mul_(steps)
    restored = (coefficients @ cosines).round_()
    blocks = restored.view(batch, channels, height // 8, width // 8, 8, 8).permute(0, 1, 2, 4, 3, 5)
    return blocks.reshape(planes.shape)


def _tables(quality: Values) -> Values:
    """Return float32 [2, B, 64], the luma and the chroma tables, by libjpeg's `jpeg_quality_scaling`."""
    quality = np.clip(np.round(quality), 1, 100)
    percent = np.where(quality < 50, np.floor(5000 / quality), 200 - 2 * quality)[:, None]
    tables = np.array([_LUMA_TABLE, _CHROMA_TABLE])[:, None]
    return np.clip(np.floor((tables * percent + 50) / 100), 1, 255).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _cosines(device: torch.device) -> Tensor:
    """Return float [64, 64], the orthonormal DCT-II of an 8x8 block as one matrix over its 64 levels."""
    place = torch.arange(8, dtype=torch.float64)
    line = torch.cos((2 * place[None] + 1) * place[:, None] * math.pi / 16) / 2
    line[0] /= math.sqrt(2)
    return torch.kron(line, line).float().to(device)


@functools.lru_cache(maxsize=8)
def _colour_matrices(device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.tensor(_TO_YCC, device=device), torch.tensor(_TO_RGB, device=device)
