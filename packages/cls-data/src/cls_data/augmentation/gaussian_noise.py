"""Gaussian noise with a seed for each sample.

With one seed for a batch, the noise of a sample would depend on the other samples of its device.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cls_data.augmentation.ops import move_to_device

_MASK = 2**32 - 1
_WEYL = 0x9E3779B9
"""2^32 divided by the golden ratio: consecutive multiples are spread evenly."""
_MULTIPLIERS = (0x21F0AAAD, 0x735A2D97)
_SHIFTS = (16, 15, 15)
"""A hash of 32 bits with little bias, found by C. Wellons' search (github.com/skeeto/
hash-prospector). Both multipliers are below 2^31, so products fit into int64."""


def gaussian_noise(length: int, seeds: NDArray[np.int64], like: Tensor) -> Tensor:
    """Draw float32 [B, length] from the standard normal distribution.

    Args:
        length: Numbers for each sample.
        seeds: int64 [B]. A sample's noise is a function of its seed, on one kind of device.
        like: The result is on the device of this tensor.
    """
    if like.device.type != "cpu":
        return hashed_noise(length, seeds, like)

    # On a CPU, PyTorch's generator takes a quarter of the time of hashing.
    noise = torch.empty((len(seeds), length))
    generator = torch.Generator()
    for row, seed in zip(noise, seeds, strict=True):
        torch.randn(length, generator=generator.manual_seed(int(seed)), out=row)
    return noise


def hashed_noise(length: int, seeds: NDArray[np.int64], like: Tensor) -> Tensor:
    """Draw the noise of all samples at once, from a hash of seed and position.

    A loop over samples would launch two kernels for each.
    """
    half = math.ceil(length / 2)
    keys = seeds ^ (seeds >> 31)
    bits = _hash(move_to_device(keys & _MASK, like), 2 * half)
    uniform = (bits >> 8).float().add_(0.5).mul_(2**-24)  # above 0 and below 1

    # Box and Muller (1958): two uniform numbers give two independent normal ones.
    radius = uniform[:, :half].log_().mul_(-2).sqrt_()
    angle = uniform[:, half:].mul_(2 * math.pi)
    pairs = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return pairs[:, :length]


def _hash(keys: Tensor, length: int) -> Tensor:
    """Return int64 [B, length], uniform in 0 to 2^32 - 1, for int64 [B] of 32 bits."""
    positions = torch.arange(length, device=keys.device) * _WEYL
    bits = (keys[:, None] + positions).bitwise_and_(_MASK)
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
        bits.bitwise_xor_(bits >> shift)
        bits.mul_(multiplier).bitwise_and_(_MASK)
    return bits.bitwise_xor_(bits >> _SHIFTS[-1])
