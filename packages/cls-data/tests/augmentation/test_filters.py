from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from cls_data import GaussianBlur, ParamSampler
from cls_data.augmentation.filters import downscale_and_back, gaussian_blur


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 24, 33), dtype=torch.uint8, generator=generator)


@pytest.fixture
def reference() -> Any:
    return pytest.importorskip("torchvision.transforms.v2.functional")


def test_blur_matches_torchvision(images: Tensor, reference: Any) -> None:
    sigma = np.array([0.3, 0.8, 1.5, 2.2], np.float32)
    radius = int(np.ceil(3 * sigma.max()))
    ours = gaussian_blur(images.float(), sigma)
    for one, image, deviation in zip(ours, images.float(), sigma.tolist(), strict=True):
        theirs = reference.gaussian_blur(image, [2 * radius + 1] * 2, [deviation] * 2)
        assert (one - theirs).abs().max() < 0.01


def test_blur_of_a_sample_hardly_depends_on_the_blur_of_others(images: Tensor) -> None:
    """A stronger blur in the batch widens the kernel beyond three standard deviations (0.3%)."""
    together = gaussian_blur(images.float(), np.array([0.8, 3, 3, 3], np.float32))[0]
    alone = gaussian_blur(images[:1].float(), np.array([0.8], np.float32))[0]
    assert (together - alone).abs().max() < 1


@given(height=st.integers(1, 12), width=st.integers(1, 12), sigma=st.floats(0.05, 20))
@settings(deadline=None)
def test_blur_keeps_a_flat_image_flat_at_any_size(height: int, width: int, sigma: float) -> None:
    flat = torch.full((1, 3, height, width), 77.0)
    assert torch.allclose(gaussian_blur(flat, np.array([sigma], np.float32)), flat, atol=1e-3)


def test_blur_changes_samples_with_the_given_probability(images: Tensor) -> None:
    many = images.repeat(500, 1, 1, 1).float()
    op = GaussianBlur(probability=0.2)
    changed = op.apply(many.clone(), op.draw(ParamSampler(len(many), 0, "blur")))
    blurred = (changed != many).flatten(1).any(dim=1)
    assert float(blurred.float().mean()) == pytest.approx(0.2, abs=0.03)


def test_blur_sigma_scales_with_the_image() -> None:
    """Twice the image size means twice the standard deviation in pixels."""
    op = GaussianBlur(probability=1, sigma=(0.05, 0.05))
    spread = []
    for side in (32, 64):
        dot = torch.zeros(1, 3, side, side)
        dot[:, :, side // 2, side // 2] = 1
        blurred = op.apply(dot, op.draw(ParamSampler(1, 0, "blur")))[0, 0]
        positions = torch.arange(side, dtype=torch.float32) - side // 2
        spread.append(float((blurred.sum(dim=0) * positions**2).sum().sqrt()))
    assert spread == pytest.approx([0.05 * 32, 0.05 * 64], rel=0.05)


@pytest.mark.parametrize("size", [(24, 33), (64, 64), (17, 50)])
def test_downscale_and_back_matches_pillow(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, *size), dtype=torch.uint8, generator=generator)
    sixteenths = [3, 7, 12, 16]
    ours = downscale_and_back(images.float(), np.array(sixteenths, np.float32) / 16)
    for one, image, share in zip(ours, images, sixteenths, strict=True):
        height, width = (max(1, round(length * share / 16)) for length in size)
        whole = Image.fromarray(image.permute(1, 2, 0).numpy())
        small = whole.resize((width, height), Image.Resampling.BILINEAR)
        theirs = np.asarray(small.resize(whole.size, Image.Resampling.BILINEAR))
        difference = np.abs(one.permute(1, 2, 0).numpy() - theirs)
        assert difference.max() <= 2  # Pillow rounds after each of four passes
        assert difference.mean() < 0.5


def test_downscaling_to_the_full_size_changes_nothing(images: Tensor) -> None:
    same = downscale_and_back(images.float(), np.ones(4, np.float32))
    assert torch.allclose(same, images.float(), atol=1e-3)


@given(height=st.integers(1, 20), width=st.integers(1, 20), share=st.floats(0, 1))
@settings(deadline=None)
def test_downscaling_keeps_a_flat_image_flat_at_any_size(
    height: int, width: int, share: float
) -> None:
    flat = torch.full((1, 3, height, width), 77.0)
    assert torch.allclose(downscale_and_back(flat, np.array([share], np.float32)), flat, atol=1e-3)
