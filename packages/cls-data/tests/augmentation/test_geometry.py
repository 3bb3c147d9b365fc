from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cls_data import Geometry
from cls_data.augmentation.broadcast import zoom_matrices
from cls_data.augmentation.geometry import (
    affine_matrices,
    crop_matrices,
    perspective_matrices,
    resample,
)
from cls_data.augmentation.params import ParamSampler

HEIGHT, WIDTH = 40, 30


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, HEIGHT, WIDTH), generator=generator).float()


@pytest.fixture
def reference() -> Any:
    """torchvision's functional transforms, whose tensor kernels interpolate as ours do."""
    return pytest.importorskip("torchvision.transforms.v2.functional")


def moved(images: Tensor, **change: Any) -> Tensor:
    """Resample with one change for all samples, or one for each; the rest at rest."""
    settled = {
        "degrees": 0.0,
        "shift_x": 0.0,
        "shift_y": 0.0,
        "zoom": 1.0,
        "shear_degrees": 0.0,
        "mirrored": False,
    }
    values: dict[str, Any] = {
        name: np.broadcast_to(
            np.asarray(value, bool if name == "mirrored" else np.float32), len(images)
        )
        for name, value in {**settled, **change}.items()
    }
    return resample(images, affine_matrices(**values, aspect=images.shape[3] / images.shape[2]))


def untouched_by_the_border(images: Tensor, transform: Any) -> Tensor:
    """Return where an image of ones stays 1: beyond its border the reference sees black, and we the nearest pixel."""
    inside: Tensor = transform(torch.ones_like(images[:1])) > 0.9999
    return inside


def differs_at_most(ours: Tensor, theirs: Tensor, inside: Tensor) -> float:
    assert float(inside.float().mean()) > 0.3
    return float(((ours - theirs).abs() * inside).max())


@pytest.mark.parametrize(
    "change",
    [
        {"degrees": 17.0},
        {"degrees": -120.0},
        {"shift_x": 0.13, "shift_y": -0.21},
        {"zoom": 1.3},
        {"zoom": 0.8},
        {"shear_degrees": 20.0},
        {"degrees": 12.0, "shift_x": 0.1, "shift_y": 0.05, "zoom": 1.1, "shear_degrees": -9.0},
    ],
    ids=lambda change: "+".join(change),
)
def test_affine_changes_match_torchvision(
    images: Tensor, reference: Any, change: dict[str, float]
) -> None:
    def affine(image: Tensor) -> Any:
        return reference.affine(
            image,
            angle=-change.get("degrees", 0.0),  # theirs turns clockwise
            translate=[change.get("shift_x", 0.0) * WIDTH, change.get("shift_y", 0.0) * HEIGHT],
            scale=change.get("zoom", 1.0),
            shear=[change.get("shear_degrees", 0.0), 0.0],
            interpolation=reference.InterpolationMode.BILINEAR,
        )

    inside = untouched_by_the_border(images, affine)
    assert differs_at_most(moved(images, **change), affine(images), inside) < 0.02


def test_perspective_matches_torchvision(images: Tensor, reference: Any) -> None:
    inwards = np.random.default_rng(0).uniform(0, 0.5, (4, 4, 2)).astype(np.float32)
    ours = resample(images, perspective_matrices(inwards))
    corners = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]])
    middle = np.array([WIDTH, HEIGHT]) / 2
    for one, image, moves in zip(ours, images, inwards, strict=True):
        start = (corners + moves * (middle - corners)).tolist()
        theirs = reference.perspective(image, start, corners.tolist())
        assert (one - theirs).abs().max() < 0.05  # every corner moves inwards, so no border is seen


def test_crops_match_torchvision(images: Tensor, reference: Any) -> None:
    height, width, top, left = 20, 21, 13, 4
    shares = (width / WIDTH, height / HEIGHT, left / (WIDTH - width), top / (HEIGHT - height))
    ours = resample(images, crop_matrices(*(np.full(4, share, np.float32) for share in shares)))
    theirs = reference.resized_crop(
        images, top, left, height, width, [HEIGHT, WIDTH], antialias=False
    )
    inner = (
        slice(None),
        slice(None),
        slice(2, -2),
        slice(2, -2),
    )  # theirs does not see beyond the crop
    assert (ours[inner] - theirs[inner]).abs().max() < 0.02


def test_a_zoom_of_the_broadcast_is_an_affine_zoom(images: Tensor) -> None:
    zoom = np.array([0.8, 1.0, 1.1, 1.25], np.float32)
    assert torch.allclose(
        resample(images, zoom_matrices(zoom)), moved(images, zoom=zoom), atol=0.01
    )


def test_mirroring_swaps_left_and_right(images: Tensor) -> None:
    assert torch.allclose(moved(images, mirrored=True), images.flip(3), atol=0.01)


def test_a_vertical_flip_swaps_top_and_bottom_and_is_cautioned_against(images: Tensor) -> None:
    flipped = Geometry(vertical_flip=1)
    matrices = flipped.matrices(ParamSampler(len(images), torch.Generator()), aspect=1.0)
    assert torch.allclose(resample(images, matrices), images.flip(2), atol=0.01)
    assert flipped.cautions() == ["vertical_flip=1.0: a 2 upside down is a 5"]


def test_at_rest_nothing_moves(images: Tensor) -> None:
    still = Geometry().matrices(ParamSampler(4, torch.Generator()), WIDTH / HEIGHT)
    assert torch.allclose(resample(images, still), images, atol=0.01)


def test_each_sample_moves_by_parameters_of_its_own(images: Tensor) -> None:
    degrees = np.array([0, 10, -20, 90], np.float32)
    alone = [moved(images[[row]], degrees=turn) for row, turn in enumerate(degrees)]
    assert torch.allclose(moved(images, degrees=degrees), torch.cat(alone), atol=1e-3)


def test_a_quarter_turn_is_counter_clockwise(images: Tensor) -> None:
    square = images[:, :, :WIDTH]
    assert torch.allclose(moved(square, degrees=90), torch.rot90(square, 1, (2, 3)), atol=0.01)


def test_a_turn_of_an_oblong_image_keeps_shapes() -> None:
    """A disc that is turned within an oblong image is still a disc."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(24.0), indexing="ij")
    disc = (((x - 11.5) ** 2 + (y - 23.5) ** 2) < 64).float()[None, None].expand(1, 3, -1, -1) * 255
    assert (moved(disc, degrees=35) - disc).abs().mean() < 3


def test_beyond_the_border_the_nearest_pixel_is_repeated(images: Tensor) -> None:
    shifted = moved(images, shift_x=6 / WIDTH, shift_y=5 / HEIGHT)
    assert torch.allclose(shifted[:, :, 5:, 6:], images[:, :, :-5, :-6], atol=0.01)
    assert torch.allclose(
        shifted[:, :, :5, :6], images[:, :, :1, :1].expand(-1, -1, 5, 6), atol=0.01
    )


@given(
    smallest=st.floats(0.1, 1),
    span=st.floats(0, 1),
    narrowest=st.floats(0.3, 1),
    widest=st.floats(1, 3),
    seed=st.integers(0, 2**62),
)
@settings(deadline=None)
def test_a_crop_keeps_the_share_asked_for_and_lies_inside_the_image(
    smallest: float, span: float, narrowest: float, widest: float, seed: int
) -> None:
    largest = smallest + span * (1 - smallest)
    geometry = Geometry(crop_area=(smallest, largest), crop_aspect=(narrowest, widest))
    matrices = geometry.matrices(ParamSampler(20, torch.Generator().manual_seed(seed)), 1.5)
    width, height = matrices[:, 0, 0], matrices[:, 1, 1]
    assert (width * height).min() >= smallest - 1e-5
    assert (width * height).max() <= largest + 1e-5
    corners = np.abs(matrices[:, :2, 2]) + np.stack([width, height], axis=1)
    assert corners.max() <= 1 + 1e-5


@given(seed=st.integers(0, 2**62))
@settings(deadline=None, max_examples=30)
def test_levels_stay_between_those_of_the_image_however_far_it_moves(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 3, 9, 11, generator=generator) * 100 + 50
    wild = Geometry(
        rotation=180,
        translation=1,
        zoom=(0.1, 10),
        shear=80,
        perspective=1,
        crop_area=(0, 1),
        horizontal_flip=0.5,
    )
    result = resample(images, wild.matrices(ParamSampler(3, generator), 11 / 9))
    assert images.min() - 0.01 <= result.min() <= result.max() <= images.max() + 0.01
