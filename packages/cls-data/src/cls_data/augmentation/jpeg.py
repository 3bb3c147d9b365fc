"""What a JPEG file loses, for whole batches: the arithmetic of libjpeg (ITU-T T.81) without the entropy coding.

As Pillow writes by default: chroma at half the resolution, the standard's tables scaled by libjpeg's rule.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cls_data.augmentation.params import Values, on_device
from cls_data.images.resize import resize

_LUMA_TABLE = (
    16,
    11,
    10,
    16,
    24,
    40,
    51,
    61,
    12,
    12,
    14,
    19,
    26,
    58,
    60,
    55,
    14,
    13,
    16,
    24,
    40,
    57,
    69,
    56,
    14,
    17,
    22,
    29,
    51,
    87,
    80,
    62,
    18,
    22,
    37,
    56,
    68,
    109,
    103,
    77,
    24,
    35,
    55,
    64,
    81,
    104,
    113,
    92,
    49,
    64,
    78,
    87,
    103,
    121,
    120,
    101,
    72,
    92,
    95,
    98,
    112,
    100,
    103,
    99,
)
"""ITU-T T.81, table K.1, row by row."""
_CHROMA_TABLE = (
    17,
    18,
    24,
    47,
    99,
    99,
    99,
    99,
    18,
    21,
    26,
    66,
    99,
    99,
    99,
    99,
    24,
    26,
    56,
    99,
    99,
    99,
    99,
    99,
    47,
    66,
    99,
    99,
    99,
    99,
    99,
    99,
    *[99] * 32,
)
"""ITU-T T.81, table K.2."""

_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
"""Both from the JFIF specification; luma and chroma are centered on 0 here, on 128 in a file."""

_TIE = 1e-4
"""Share by which a quotient is enlarged: libjpeg rounds ties, which are frequent, away from zero."""
_HALF = 0.501
"""What is added before levels are cut to integers: libjpeg rounds their ties, which float32 may just miss, upwards."""


def compress(images: Tensor, quality: Values) -> Tensor:
    """Return float [B, 3, H, W] in 0-255 as it comes back from JPEG files.

    Args:
        images: float [B, 3, H, W] in 0-255.
        quality: [B], 1-100 as in Pillow.
    """
    height, width = images.shape[2:]
    colors = _Colours.on(images.device)
    ycc = _converted(images.round(), colors.forth, colors.luma_down).round_()
    luma_table, chroma_table = on_device(_tables(quality), images)
    luma = _quantize(_padded(ycc[:, :1], -height % 8, -width % 8), luma_table)
    # Rows are repeated where chroma has its own resolution, columns before: the order of libjpeg's passes.
    chroma = _halved(_padded(ycc[:, 1:], height % 2, -width % 16))
    rows, columns = (height + 1) // 2, (width + 1) // 2
    chroma = _quantize(_padded(chroma, -rows % 8, 0), chroma_table)[:, :, :rows, :columns]
    # libjpeg's "fancy" upsampling weighs the four nearest by 9, 3, 3, 1 sixteenths, which is bilinear.
    chroma = resize(chroma, (2 * rows, 2 * columns)).round_()
    ycc = torch.cat([luma[:, :, :height, :width], chroma[:, :, :height, :width]], dim=1)
    return _converted(ycc, colors.back, colors.grey_up).round_().clamp_(0, 255)


def _converted(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    flat = torch.baddbmm(offset, matrix.expand(len(images), -1, -1), images.flatten(2))
    return flat.view_as(images)


def _padded(planes: Tensor, below: int, right: int) -> Tensor:
    return (
        functional.pad(planes, (0, right, 0, below), mode="replicate") if right or below else planes
    )


def _halved(planes: Tensor) -> Tensor:
    """Return the means of 2x2 places of [B, C, H, W], ties rounded down and up in turns: [B, C, H / 2, W / 2]."""
    upper, lower = planes[:, :, ::2], planes[:, :, 1::2]
    rows = upper + lower
    sums = rows[..., ::2] + rows[..., 1::2]
    return sums.add_(_turns(sums.shape[3], planes.device)).mul_(0.25).floor_()


def _quantize(planes: Tensor, table: Tensor) -> Tensor:
    """Transform [B, C, H, W] in 8x8 blocks, round to multiples of the table [B, 64], and transform back."""
    batch, channels, height, width = planes.shape
    cosines = _cosines(planes.device)
    blocks = planes.view(batch, channels, height // 8, 8, width // 8, 8).permute(0, 1, 2, 4, 3, 5)
    steps = table[:, None]
    # libjpeg's coefficients are integers, eight times as large; that is why so many of their quotients are ties.
    coefficients = (blocks.reshape(batch, -1, 64) @ (8 * cosines.T)).round_()
    coefficients.mul_(1 / (steps * (8 * (1 - _TIE)))).round_().mul_(steps)
    restored = (coefficients @ cosines).add_(_HALF).floor_().clamp_(-128, 127)
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


@functools.lru_cache(maxsize=64)
def _turns(length: int, device: torch.device) -> Tensor:
    return (torch.arange(length) % 2 + 1.0).to(device)


class _Colours(NamedTuple):
    """Both color transforms: matrices [3, 3], and what is added to each plane [3, 1]."""

    forth: Tensor
    luma_down: Tensor
    back: Tensor
    grey_up: Tensor

    @classmethod
    @functools.lru_cache(maxsize=8)
    def on(cls, device: torch.device) -> "_Colours":
        # The fraction decides ties, which libjpeg rounds up for luma and down for chroma.
        values = (_TO_YCC, [[1e-4 - 128], [-1e-4], [-1e-4]], _TO_RGB, [[128.0]] * 3)
        return cls(*(torch.tensor(value, device=device) for value in values))
