import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from torch import Tensor

from cls_data import LightAugmentation
from cls_data.augmentation import affine_matrices, erase, recolour, resample


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (4, 3, 24, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def moved(images: Tensor, **change: float) -> Tensor:
    """Resample float images with one change for all, the rest at rest."""
    settled = {"degrees": 0.0, "shift_x": 0.0, "shift_y": 0.0, "zoom": 1.0, "shear_degrees": 0.0, "mirrored": False}
    values: dict[str, Any] = {
        name: torch.full((len(images),), change.get(name, rest)) for name, rest in settled.items()
    }
    return resample(images, affine_matrices(**values, aspect=images.shape[3] / images.shape[2]))


def test_no_change_asked_for_is_no_change(images: Tensor) -> None:
    still = LightAugmentation(
        rotation=0, translation=0, zoom=(1, 1), shear=0, brightness=0, contrast=0, saturation=0, erase_probability=0
    )
    assert torch.allclose(still(images, torch.Generator()), images.float(), atol=0.01)


def test_the_same_seed_gives_the_same_images(images: Tensor) -> None:
    augment = LightAugmentation()
    first, second = (augment(images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, augment(images, torch.Generator().manual_seed(6)))


def test_every_sample_has_parameters_of_its_own(images: Tensor) -> None:
    same = images[:1].expand(8, -1, -1, -1)
    changed = LightAugmentation()(same, torch.Generator().manual_seed(0))
    distances = torch.cdist(changed.flatten(1), changed.flatten(1)) + torch.eye(8) * 1e9
    assert distances.min() > 100


@given(seed=st.integers(0, 2**62))
@settings(max_examples=30, deadline=None)
def test_levels_stay_between_0_and_255(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (3, 3, 9, 11), dtype=torch.uint8, generator=generator)
    changed = LightAugmentation(brightness=1, contrast=1, saturation=1, erase_probability=1)(images, generator)
    assert changed.dtype == torch.float32
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 255


def test_a_quarter_turn_is_counter_clockwise(images: Tensor) -> None:
    square = images[:, :, :16].float()
    assert torch.allclose(moved(square, degrees=90), torch.rot90(square, 1, (2, 3)), atol=0.01)


def test_a_turn_of_an_oblong_image_keeps_shapes() -> None:
    """A disc that is turned within an oblong image is still a disc."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(24.0), indexing="ij")
    disc = (((x - 11.5) ** 2 + (y - 23.5) ** 2) < 64).float()[None, None].expand(1, 3, -1, -1) * 255
    assert (moved(disc, degrees=35) - disc).abs().mean() < 3


def test_a_shift_moves_the_content_right_and_down(images: Tensor) -> None:
    shifted = moved(images.float(), shift_x=2 / 16, shift_y=3 / 24)
    assert torch.allclose(shifted[:, :, 3:, 2:], images[:, :, :-3, :-2].float(), atol=0.01)


def test_mirroring_swaps_left_and_right(images: Tensor) -> None:
    assert torch.allclose(moved(images.float(), mirrored=True), images.float().flip(3), atol=0.01)


def test_zoom_enlarges_the_content() -> None:
    box = torch.zeros(1, 3, 32, 32)
    box[:, :, 12:20, 12:20] = 255
    assert int((moved(box, zoom=2) > 127).sum()) == pytest.approx(4 * int((box > 127).sum()), rel=0.1)


def test_shear_moves_rows_sideways_by_its_tangent() -> None:
    line = torch.zeros(1, 3, 41, 41)
    line[:, :, :, 20] = 255
    columns = moved(line, shear_degrees=45)[0, 0].argmax(dim=1)
    assert abs(int(columns[30] - columns[10])) == 20


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [("brightness", ImageEnhance.Brightness), ("saturation", ImageEnhance.Color), ("contrast", ImageEnhance.Contrast)],
)
@pytest.mark.parametrize("factor", [0.4, 1.0, 1.5])
def test_colour_changes_match_pillow(images: Tensor, name: str, enhancer: Any, factor: float) -> None:
    factors = {
        key: torch.full((4,), factor if key == name else 1.0) for key in ("brightness", "contrast", "saturation")
    }
    ours = recolour(images.float(), **factors)
    for one, image in zip(ours, images, strict=True):
        theirs = enhancer(Image.fromarray(image.permute(1, 2, 0).numpy())).enhance(factor)
        assert np.abs(one.permute(1, 2, 0).numpy() - np.asarray(theirs)).max() <= 1.5  # Pillow rounds twice


@given(area=st.floats(0.02, 0.4), ratio=st.floats(0, 1), left=st.floats(0, 1), top=st.floats(0, 1))
@settings(deadline=None)
def test_erasing_fills_one_rectangle_of_the_area_asked_for(area: float, ratio: float, left: float, top: float) -> None:
    images = torch.zeros(1, 3, 100, 100)
    place = {"ratio": ratio, "left": left, "top": top, "level": 9.0}
    erased = erase(images, torch.tensor([area]), **{name: torch.tensor([value]) for name, value in place.items()})
    filled = erased[0, 0] == 9
    rows, columns = filled.any(dim=1).sum(), filled.any(dim=0).sum()
    assert filled.sum() == rows * columns
    assert float(rows * columns) / 10_000 == pytest.approx(area, abs=0.02)
    assert 1 / math.sqrt(2) - 0.1 <= columns / (100 * math.sqrt(area)) <= math.sqrt(2) + 0.1


def test_horizontal_flip_is_off_by_default() -> None:
    assert LightAugmentation().horizontal_flip == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"horizontal_flip": 1.5},
        {"erase_probability": -0.1},
        {"zoom": (0, 1)},
        {"erase_area": (0.3, 0.2)},
        {"contrast": 2},
    ],
)
def test_a_setting_out_of_range_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LightAugmentation(**wrong)
