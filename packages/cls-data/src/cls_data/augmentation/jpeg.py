"""JPEG compression loss for whole batches: libjpeg's arithmetic (ITU-T T.81), no entropy coding.

The settings are Pillow's defaults: chroma at half resolution, and the standard's quantization
tables scaled by libjpeg's rule.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cls_data.augmentation.ops import move_to_device
from cls_data.augmentation.random_streams import Values
from cls_data.images.resize import resize

_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""ITU-T T.81, table K.1."""

_CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
"""ITU-T T.81, table K.2."""

_RGB_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_YCC_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
"""Both from the JFIF specification. Luma and chroma are centered on 0 here, on 128 in a file."""

_TIE = 1e-4
"""Relative increase of a quotient: libjpeg rounds ties, which are frequent, away from zero."""

_HALF = 0.501
"""Added before levels are floored: libjpeg rounds their ties up, and float32 may miss a tie."""


def compress(images: Tensor, quality: Values) -> Tensor:
    """Return float [B, 3, H, W] in 0-255 as decoded from JPEG files of a quality [B], 1-100."""
    height, width = images.shape[2:]
    constants = _color_constants(images.device)
    tables = move_to_device(_quantization_tables(quality), images)
    luma_table, chroma_table = tables

    images = images.round()
    ycc = _transform_colors(images, constants.to_ycc, constants.ycc_offset)
    ycc.round_()

    luma = _pad(ycc[:, :1], bottom=-height % 8, right=-width % 8)
    luma = _quantize(luma, luma_table)
    luma = luma[:, :, :height, :width]

    # Rows are padded after chroma is downsampled, columns before: the order of libjpeg's passes.
    chroma = _downsample(_pad(ycc[:, 1:], bottom=height % 2, right=-width % 16))

    rows = (height + 1) // 2
    columns = (width + 1) // 2
    chroma = _pad(chroma, bottom=-rows % 8, right=0)
    chroma = _quantize(chroma, chroma_table)
    chroma = chroma[:, :, :rows, :columns]

    # libjpeg's "fancy" upsampling weights the four nearest values by 9, 3, 3, and 1 sixteenths,
    # which is bilinear interpolation.
    chroma = resize(chroma, (2 * rows, 2 * columns)).round_()
    chroma = chroma[:, :, :height, :width]

    ycc = torch.cat([luma, chroma], dim=1)
    rgb = _transform_colors(ycc, constants.to_rgb, constants.rgb_offset)
    return rgb.round_().clamp_(0, 255)


def _transform_colors(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    pixels = images.flatten(2)
    matrices = matrix.expand(len(images), -1, -1)
    transformed = torch.baddbmm(offset, matrices, pixels)
    return transformed.view_as(images)


def _pad(planes: Tensor, *, bottom: int, right: int) -> Tensor:
    """Repeat the last row and the last column."""
    if bottom == right == 0:
        return planes
    return functional.pad(planes, (0, right, 0, bottom), mode="replicate")


def _downsample(planes: Tensor) -> Tensor:
    """Average 2x2 pixels, alternately rounding ties down and up: [B, C, H, W] to half the size."""
    upper = planes[:, :, ::2]
    lower = planes[:, :, 1::2]
    rows = upper + lower
    left = rows[..., ::2]
    right = rows[..., 1::2]
    sums = left + right
    bias = _downsampling_bias(sums.shape[3], planes.device)
    return sums.add_(bias).mul_(0.25).floor_()


def _quantize(planes: Tensor, table: Tensor) -> Tensor:
    """Apply the DCT to 8x8 blocks, round to multiples of the table [B, 64], and transform back."""
    batch, channels, height, width = planes.shape
    rows = height // 8
    columns = width // 8
    blocks = planes.view(batch, channels, rows, 8, columns, 8)
    blocks = blocks.permute(0, 1, 2, 4, 3, 5)
    blocks = blocks.reshape(batch, -1, 64)

    # libjpeg's coefficients are integers and eight times as large, so many quotients are ties.
    dct = _dct_matrix(planes.device)
    coefficients = blocks @ (8 * dct.T)
    coefficients.round_()

    steps = table[:, None]
    divisors = steps * (8 * (1 - _TIE))
    coefficients.mul_(1 / divisors).round_()
    coefficients.mul_(steps)

    levels = coefficients @ dct
    levels.add_(_HALF).floor_().clamp_(-128, 127)
    levels = levels.view(batch, channels, rows, columns, 8, 8)
    return levels.permute(0, 1, 2, 4, 3, 5).reshape(planes.shape)


def _quantization_tables(quality: Values) -> Values:
    """Return float32 [2, B, 64], luma and chroma tables by libjpeg's `jpeg_quality_scaling`."""
    quality = np.clip(np.round(quality), 1, 100)
    percent = np.where(
        quality < 50,
        np.floor(5000 / quality),
        200 - 2 * quality,
    )
    tables = np.array([_LUMA_TABLE, _CHROMA_TABLE])
    tables = tables.reshape(2, 1, 64)
    scaled = (tables * percent[:, None] + 50) / 100
    rounded = np.clip(np.floor(scaled), 1, 255)
    return rounded.astype(np.float32)


@functools.lru_cache(maxsize=8)
def _dct_matrix(device: torch.device) -> Tensor:
    """Return float [64, 64], the orthonormal DCT-II of an 8x8 block as a matrix of its levels."""
    position = torch.arange(8, dtype=torch.float64)
    frequency = position[:, None]
    angles = (2 * position + 1) * frequency * math.pi / 16
    line = torch.cos(angles) / 2
    line[0] /= math.sqrt(2)

    block = torch.kron(line, line)
    return block.float().to(device)


@functools.lru_cache(maxsize=64)
def _downsampling_bias(length: int, device: torch.device) -> Tensor:
    """Return float [length], alternately 1 and 2."""
    bias = torch.arange(length) % 2 + 1.0
    return bias.to(device)


class _ColorConstants(NamedTuple):
    """Color matrices [3, 3], and the offset added to each plane [3, 1]."""

    to_ycc: Tensor
    ycc_offset: Tensor
    to_rgb: Tensor
    rgb_offset: Tensor


@functools.lru_cache(maxsize=8)
def _color_constants(device: torch.device) -> _ColorConstants:
    return _ColorConstants(
        to_ycc=torch.tensor(_RGB_TO_YCC, device=device),
        # The fractions decide ties, which libjpeg rounds up for luma and down for chroma.
        ycc_offset=torch.tensor([[1e-4 - 128], [-1e-4], [-1e-4]], device=device),
        to_rgb=torch.tensor(_YCC_TO_RGB, device=device),
        rgb_offset=torch.tensor([[128.0]] * 3, device=device),
    )
