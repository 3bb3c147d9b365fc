from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from cls_data import ColorJitter, ParamSampler
from cls_data.augmentation.color_jitter import adjust_color


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 24, 16), dtype=torch.uint8, generator=generator)


def adjust(images: Tensor, **factors: Any) -> Tensor:
    """Apply factors, each for all samples or one per sample; the others are 1."""
    arrays = {}
    for name in ("brightness", "contrast", "saturation"):
        arrays[name] = np.broadcast_to(np.float32(factors.get(name, 1)), len(images))
    return adjust_color(images.float(), **arrays)


def to_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def max_difference(ours: Tensor, pillow: Image.Image) -> float:
    return float(np.abs(ours.permute(1, 2, 0).numpy() - np.asarray(pillow)).max())


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("saturation", ImageEnhance.Color),
        ("contrast", ImageEnhance.Contrast),
    ],
)
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.5])
def test_adjust_color_matches_pillow(
    images: Tensor, name: str, enhancer: Any, factor: float
) -> None:
    adjusted = adjust(images, **{name: factor})
    for ours, image in zip(adjusted, images, strict=True):
        theirs = enhancer(to_pillow(image)).enhance(factor)
        assert max_difference(ours, theirs) <= 1.5  # Pillow rounds twice


def test_adjust_color_applies_saturation_then_contrast_then_brightness(images: Tensor) -> None:
    mild = images // 4 + 96  # so that Pillow, which clips after each step, clips nothing
    adjusted = adjust(mild, saturation=0.7, contrast=1.2, brightness=0.9)
    for ours, image in zip(adjusted, mild, strict=True):
        theirs = ImageEnhance.Color(to_pillow(image)).enhance(0.7)
        theirs = ImageEnhance.Contrast(theirs).enhance(1.2)
        theirs = ImageEnhance.Brightness(theirs).enhance(0.9)
        assert max_difference(ours, theirs) <= 3  # Pillow rounds four times


def test_adjust_color_applies_each_sample_its_own_factor(images: Tensor) -> None:
    factors = np.array([0.5, 0.8, 1.0, 1.4], np.float32)
    separate = [adjust(images[[row]], contrast=factor) for row, factor in enumerate(factors)]
    assert torch.allclose(adjust(images, contrast=factors), torch.cat(separate), atol=1e-3)


def test_color_jitter_removes_color_with_the_given_probability(images: Tensor) -> None:
    many = images.repeat(500, 1, 1, 1).float()
    op = ColorJitter(gray=0.3)
    changed = op.apply(many.clone(), op.draw(ParamSampler(len(many), 0, "color")))
    gray = (changed.amax(dim=1) - changed.amin(dim=1)).amax(dim=(1, 2)) < 1e-3
    assert float(gray.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(changed[~gray], many[~gray])
    luma = torch.einsum("bchw,c->bhw", many[gray], torch.tensor([0.299, 0.587, 0.114]))
    assert torch.allclose(changed[gray][:, 0], luma, atol=1e-3)


def test_color_jitter_without_strength_leaves_out_of_range_levels_unchanged() -> None:
    images = torch.full((2, 3, 4, 4), 255.0001)
    op = ColorJitter()
    assert torch.equal(op.apply(images.clone(), op.draw(ParamSampler(2, 0, "color"))), images)
