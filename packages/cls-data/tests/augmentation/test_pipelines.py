import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from torch import Tensor

from cls_data import ColorJitter, RandomErasing
from cls_data.augmentation.color_jitter import adjust_color
from cls_data.augmentation.params import ParamSampler, change_some
from cls_data.augmentation.random_erasing import erase


@pytest.fixture
def images() -> Tensor:
    return torch.randint(
        0, 256, (4, 3, 24, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def recoloured(images: Tensor, **factors: Any) -> Tensor:
    """Recolour with the factors given, each for all samples or one for each; 1 for the rest."""
    still = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0}
    every = {
        name: np.broadcast_to(np.float32(factor), len(images))
        for name, factor in {**still, **factors}.items()
    }
    return adjust_color(images.float(), **every)


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("saturation", ImageEnhance.Color),
        ("contrast", ImageEnhance.Contrast),
    ],
)
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.5])
def test_colour_changes_match_pillow(
    images: Tensor, name: str, enhancer: Any, factor: float
) -> None:
    for one, image in zip(recoloured(images, **{name: factor}), images, strict=True):
        theirs = enhancer(Image.fromarray(image.permute(1, 2, 0).numpy())).enhance(factor)
        assert (
            np.abs(one.permute(1, 2, 0).numpy() - np.asarray(theirs)).max() <= 1.5
        )  # Pillow rounds twice


def test_colour_changes_together_are_saturation_then_contrast_then_brightness(
    images: Tensor,
) -> None:
    """Mild enough that Pillow, which cuts levels off after each step, cuts nothing."""
    mild = images // 4 + 96
    for one, image in zip(
        recoloured(mild, saturation=0.7, contrast=1.2, brightness=0.9), mild, strict=True
    ):
        theirs = Image.fromarray(image.permute(1, 2, 0).numpy())
        for enhancer, factor in (
            (ImageEnhance.Color, 0.7),
            (ImageEnhance.Contrast, 1.2),
            (ImageEnhance.Brightness, 0.9),
        ):
            theirs = enhancer(theirs).enhance(factor)
        assert (
            np.abs(one.permute(1, 2, 0).numpy() - np.asarray(theirs)).max() <= 3
        )  # Pillow rounds four times


def test_each_sample_has_colour_factors_of_its_own(images: Tensor) -> None:
    factors = np.array([0.5, 0.8, 1.0, 1.4], np.float32)
    alone = [recoloured(images[[row]], contrast=factor) for row, factor in enumerate(factors)]
    assert torch.allclose(recoloured(images, contrast=factors), torch.cat(alone), atol=1e-3)


def test_the_share_of_grey_loses_all_colour_and_the_others_none(images: Tensor) -> None:
    many = images.repeat(500, 1, 1, 1).float()
    part = ColorJitter(gray=0.3)
    changed = part.apply(many, part.draw(ParamSampler(len(many), torch.Generator().manual_seed(0))))
    gray = (changed.amax(dim=1) - changed.amin(dim=1)).amax(dim=(1, 2)) < 1e-3
    assert float(gray.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.allclose(changed[~gray], many[~gray], atol=1e-3)
    luma = torch.einsum("bchw,c->bhw", many[gray], torch.tensor([0.299, 0.587, 0.114]))
    assert torch.allclose(changed[gray][:, 0], luma, atol=1e-3)


@given(area=st.floats(0.02, 0.4), ratio=st.floats(0, 1), left=st.floats(0, 1), top=st.floats(0, 1))
@settings(deadline=None)
def test_erasing_fills_one_rectangle_of_the_area_asked_for(
    area: float, ratio: float, left: float, top: float
) -> None:
    images = torch.zeros(1, 3, 100, 100)
    place = {"ratio": ratio, "left": left, "top": top, "level": 9.0}
    given_place = {name: np.array([value], np.float32) for name, value in place.items()}
    erased = erase(images, np.array([area], np.float32), **given_place)
    filled = erased[0, 0] == 9
    rows, columns = filled.any(dim=1).sum(), filled.any(dim=0).sum()
    assert filled.sum() == rows * columns
    assert float(rows * columns) / 10_000 == pytest.approx(area, abs=0.02)
    assert 1 / math.sqrt(2) - 0.1 <= columns / (100 * math.sqrt(area)) <= math.sqrt(2) + 0.1
    assert torch.equal(erased, torch.where(filled, 9.0, images))


def test_erasing_takes_about_its_share_of_the_samples_and_leaves_the_others(images: Tensor) -> None:
    many = images.repeat(500, 1, 1, 1).float()
    part = RandomErasing(probability=0.25, area=(0.2, 0.3))
    changed = part.apply(
        many.clone(), part.draw(ParamSampler(len(many), torch.Generator().manual_seed(0)))
    )
    erased = (changed != many).flatten(1).any(dim=1)
    assert float(erased.float().mean()) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("chosen", [[], [2], [0, 3], [0, 1, 2, 3]])
def test_only_the_chosen_samples_change(images: Tensor, chosen: list[int]) -> None:
    seen: list[int] = []

    def darken(some: Tensor, rows: Any) -> Tensor:
        seen.extend(rows.tolist())
        return some - 1000

    changed = change_some(images.float(), np.isin(np.arange(4), chosen), darken)
    assert seen == chosen
    assert torch.equal(
        (changed < 0).flatten(1).all(dim=1), torch.tensor([row in chosen for row in range(4)])
    )
    others = [row for row in range(4) if row not in chosen]
    assert torch.equal(changed[others], images[others].float())


@given(low=st.floats(-10, 10), span=st.floats(0, 20), seed=st.integers(0, 2**62))
def test_draws_lie_in_their_range_and_take_as_much_of_the_stream_whatever_it_is(
    low: float, span: float, seed: int
) -> None:
    generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
    drawn = ParamSampler(50, generators[0]).between(low, low + span)
    assert drawn.dtype == np.float32
    assert low - 1e-5 <= drawn.min() <= drawn.max() <= low + span + 1e-5
    ParamSampler(50, generators[1]).chance(0.5)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_a_factor_halves_as_often_as_it_doubles() -> None:
    factors = ParamSampler(20_000, torch.Generator().manual_seed(0)).factor(0.5, 2)
    assert 0.499 <= factors.min() <= factors.max() <= 2.001
    assert (factors < 1).mean() == pytest.approx(0.5, abs=0.02)
