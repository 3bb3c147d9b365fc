"""Comparison with Pillow's JPEG files of the same quality.

libjpeg computes in integers. A coefficient close to the middle between two multiples of its step
may be rounded differently, which changes all 64 levels of its block. So a few levels differ by
more than a rounding error.
"""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cls_data.augmentation.jpeg import compress

Pixels = NDArray[np.uint8]


def crop(height: int, width: int, seed: int) -> Pixels:
    """Draw a number on a shaded background with camera noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ground = rng.uniform(40, 215, 3) + np.stack([x / width, y / height], axis=2) @ rng.uniform(
        -60, 60, (2, 3)
    )
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    ink = tuple(rng.integers(0, 256, 3).tolist())
    position = (width // 6, height // 6)
    ImageDraw.Draw(image).text(
        position, "23", fill=ink, font=ImageFont.load_default(size=int(height * 0.6))
    )
    noisy = np.asarray(image) + rng.normal(0, 4, (height, width, 3))
    return np.clip(noisy, 0, 255).round().astype(np.uint8)


def noise(height: int, width: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def compress_with_pillow(pixels: Pixels, quality: int) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def compress_batch(pixels: Pixels, quality: list[int]) -> NDArray[np.float32]:
    """Compress uint8 [B, H, W, 3]."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    result: NDArray[np.float32] = (
        compress(images, np.array(quality, np.float32)).permute(0, 2, 3, 1).numpy()
    )
    return result


@pytest.mark.parametrize("picture", [crop, noise])
@pytest.mark.parametrize("size", [(64, 64), (48, 32), (40, 29), (29, 40), (30, 42), (33, 17)])
@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95, 100])
def test_compression_matches_pillow(
    picture: Callable[[int, int, int], Pixels], size: tuple[int, int], quality: int
) -> None:
    pixels = np.stack([picture(*size, seed) for seed in range(12)])
    theirs = np.stack([compress_with_pillow(each, quality) for each in pixels])
    difference = np.abs(compress_batch(pixels, [quality] * 12) - theirs)
    mean, within_three = (0.3, 0.99) if picture is crop else (0.6, 0.95)
    assert difference.mean() < mean
    assert (difference <= 3).mean() > within_three


def test_compression_of_flat_images_matches_pillow() -> None:
    """Flat images test rounding alone: either all or none of the 64 levels of a block are ties."""
    rng = np.random.default_rng(0)
    pixels = np.tile(rng.integers(0, 256, (500, 1, 1, 3), dtype=np.uint8), (1, 16, 16, 1))
    quality = rng.integers(1, 101, 500).tolist()
    theirs = np.stack(
        [compress_with_pillow(each, one) for each, one in zip(pixels, quality, strict=True)]
    )
    difference = np.abs(compress_batch(pixels, quality) - theirs)
    assert difference.max() <= 1
    assert (difference > 0).any(axis=(1, 2, 3)).mean() < 0.01


def test_each_sample_has_its_own_quality() -> None:
    pixels = np.stack([crop(40, 29, 0)] * 4)
    quality = [5, 30, 60, 100]
    together = compress_batch(pixels, quality)
    for one, each in zip(together, quality, strict=True):
        assert np.array_equal(one, compress_batch(pixels[:1], [each])[0])
    lost = np.abs(together - pixels).mean(axis=(1, 2, 3))
    assert (np.diff(lost) < 0).all()


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    quality=st.floats(1, 100),
    seed=st.integers(0, 2**62),
)
@settings(deadline=None, max_examples=50)
def test_compression_of_any_size_returns_integer_levels(
    height: int, width: int, quality: float, seed: int
) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 255
    before = images.clone()
    result = compress(images, np.full(2, quality, np.float32))
    assert result.shape == images.shape
    assert torch.equal(result, result.round())
    assert 0 <= result.min() <= result.max() <= 255
    assert torch.equal(images, before)
