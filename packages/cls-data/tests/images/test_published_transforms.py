"""Rows D6: `shortest_edge` gives the pixels of the transforms of published weights."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision.models import EfficientNet_B0_Weights, ResNet18_Weights

from cls_export.contract.preprocessing import Preprocessing

PUBLISHED = ResNet18_Weights.DEFAULT.transforms
UNSCALED = {"mean": (0, 0, 0), "std": (1, 1, 1)}


@functools.cache
def photo(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng([width, height])
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def published_pixels(image: Image.Image, size: int, resize_to: int) -> NDArray[np.uint8]:
    transform = PUBLISHED(crop_size=size, resize_size=resize_to, **UNSCALED)
    levels = transform(image) * 255
    pixels: NDArray[np.uint8] = levels.round().byte().permute(1, 2, 0).numpy()
    return pixels


def our_pixels(image: Image.Image, size: int, resize_to: int) -> NDArray[np.uint8]:
    preprocessing = Preprocessing(
        size=(size, size), resize="shortest_edge", resize_to=resize_to, **UNSCALED
    )
    return preprocessing.load_pixels(image)


@pytest.mark.parametrize(
    "size",
    [
        *[(500, 375), (375, 500), (640, 480), (333, 500), (1920, 1080), (1080, 1920)],
        *[(256, 256), (257, 256), (224, 224), (1024, 683), (61, 17), (3000, 7)],
    ],
)
def test_imagenet_preprocessing_equals_the_published_transform(size: tuple[int, int]) -> None:
    image = photo(*size)
    assert np.array_equal(our_pixels(image, 224, 256), published_pixels(image, 224, 256))


@given(
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    size=st.integers(1, 40),
    margin=st.integers(0, 20),
)
@settings(max_examples=600, deadline=None)
def test_every_size_equals_the_published_transform(
    width: int, height: int, size: int, margin: int
) -> None:
    image = photo(width, height)
    ours = our_pixels(image, size, size + margin)
    assert np.array_equal(ours, published_pixels(image, size, size + margin))


def test_every_pair_of_small_sides_equals_the_published_transform() -> None:
    unequal = []
    for width in range(20, 61):
        for height in range(20, 61):
            image = photo(width, height)
            if not np.array_equal(our_pixels(image, 16, 19), published_pixels(image, 16, 19)):
                unequal.append((width, height))
    assert not unequal


def test_bicubic_weights_equal_their_published_transform() -> None:
    published = EfficientNet_B0_Weights.DEFAULT.transforms(**UNSCALED)
    preprocessing = Preprocessing(
        size=(224, 224), resize="shortest_edge", resize_to=256, resample="bicubic", **UNSCALED
    )
    for size in [(500, 375), (281, 333), (1023, 767)]:
        expected = (published(photo(*size)) * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(preprocessing.load_pixels(photo(*size)), expected)
