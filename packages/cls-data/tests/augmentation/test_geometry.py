from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cls_data import GeometricTransform, ParamSampler
from cls_data.augmentation.broadcast import zoom_matrices
from cls_data.augmentation.geometry import (
    affine_matrices,
    crop_matrices,
    perspective_matrices,
    resample,
)

HEIGHT, WIDTH = 40, 30


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, HEIGHT, WIDTH), generator=generator).float()


@pytest.fixture
def reference() -> Any:
    """torchvision's functional transforms; their tensor kernels interpolate like `resample`."""
    return pytest.importorskip("torchvision.transforms.v2.functional")


def draw_matrices(op: GeometricTransform, samples: int, aspect: float, seed: int = 0) -> Any:
    params = op.draw(ParamSampler(samples, seed, "geometry"))
    return op.matrices(params, aspect)


def move(images: Tensor, **change: Any) -> Tensor:
    """Resample with affine parameters, each for all samples or one per sample."""
    parameters = {
        "degrees": 0.0,
        "shift_x": 0.0,
        "shift_y": 0.0,
        "zoom": 1.0,
        "shear_degrees": 0.0,
        "mirrored": False,
        **change,
    }
    values: dict[str, Any] = {}
    for name, value in parameters.items():
        dtype = bool if name == "mirrored" else np.float32
        values[name] = np.broadcast_to(np.asarray(value, dtype), len(images))
    aspect = images.shape[3] / images.shape[2]
    return resample(images, affine_matrices(**values, aspect=aspect))


def pixels_inside(images: Tensor, transform: Any) -> Tensor:
    """Return which output pixels come from inside the image.

    Beyond the border, torchvision fills with black, and `resample` repeats the nearest pixel.
    """
    inside: Tensor = transform(torch.ones_like(images[:1])) > 0.9999
    return inside


def max_difference(ours: Tensor, theirs: Tensor, inside: Tensor) -> float:
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
def test_affine_matrices_match_torchvision(
    images: Tensor, reference: Any, change: dict[str, float]
) -> None:
    def affine(image: Tensor) -> Any:
        return reference.affine(
            image,
            angle=-change.get("degrees", 0.0),  # torchvision rotates clockwise
            translate=[change.get("shift_x", 0.0) * WIDTH, change.get("shift_y", 0.0) * HEIGHT],
            scale=change.get("zoom", 1.0),
            shear=[change.get("shear_degrees", 0.0), 0.0],
            interpolation=reference.InterpolationMode.BILINEAR,
        )

    inside = pixels_inside(images, affine)
    assert max_difference(move(images, **change), affine(images), inside) < 0.02


def test_perspective_matrices_match_torchvision(images: Tensor, reference: Any) -> None:
    inwards = np.random.default_rng(0).uniform(0, 0.5, (4, 4, 2)).astype(np.float32)
    ours = resample(images, perspective_matrices(inwards))
    corners = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]])
    middle = np.array([WIDTH, HEIGHT]) / 2
    for one, image, moves in zip(ours, images, inwards, strict=True):
        start = (corners + moves * (middle - corners)).tolist()
        theirs = reference.perspective(image, start, corners.tolist())
        assert (
            one - theirs
        ).abs().max() < 0.05  # all corners move inwards, so no pixel lies beyond the border


def test_crop_matrices_match_torchvision(images: Tensor, reference: Any) -> None:
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


def test_zoom_matrices_match_an_affine_zoom(images: Tensor) -> None:
    zoom = np.array([0.8, 1.0, 1.1, 1.25], np.float32)
    assert torch.allclose(resample(images, zoom_matrices(zoom)), move(images, zoom=zoom), atol=0.01)


def test_horizontal_flip_swaps_left_and_right(images: Tensor) -> None:
    assert torch.allclose(move(images, mirrored=True), images.flip(3), atol=0.01)


def test_vertical_flip_swaps_top_and_bottom_and_warns(images: Tensor) -> None:
    flipped = GeometricTransform(vertical_flip=1)
    matrices = draw_matrices(flipped, len(images), aspect=1.0)
    assert torch.allclose(resample(images, matrices), images.flip(2), atol=0.01)
    assert flipped.label_warnings() == ["vertical_flip=1.0: an upside-down 2 can look like a 5"]


def test_identity_parameters_give_identity_matrices(images: Tensor) -> None:
    matrices = draw_matrices(GeometricTransform(), 4, WIDTH / HEIGHT)
    assert (matrices == np.eye(3)).all()
    assert torch.allclose(resample(images, matrices), images, atol=0.01)


def test_each_sample_moves_by_its_own_parameters(images: Tensor) -> None:
    degrees = np.array([0, 10, -20, 90], np.float32)
    alone = [move(images[[row]], degrees=turn) for row, turn in enumerate(degrees)]
    assert torch.allclose(move(images, degrees=degrees), torch.cat(alone), atol=1e-3)


def test_positive_rotation_is_counterclockwise(images: Tensor) -> None:
    square = images[:, :, :WIDTH]
    assert torch.allclose(move(square, degrees=90), torch.rot90(square, 1, (2, 3)), atol=0.01)


def test_rotation_of_a_non_square_image_preserves_shapes() -> None:
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(24.0), indexing="ij")
    disc = (((x - 11.5) ** 2 + (y - 23.5) ** 2) < 64).float()[None, None].expand(1, 3, -1, -1) * 255
    assert (move(disc, degrees=35) - disc).abs().mean() < 3


def test_pixels_beyond_the_border_repeat_the_nearest_pixel(images: Tensor) -> None:
    shifted = move(images, shift_x=6 / WIDTH, shift_y=5 / HEIGHT)
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
def test_crop_has_the_given_area_and_lies_inside_the_image(
    smallest: float, span: float, narrowest: float, widest: float, seed: int
) -> None:
    largest = smallest + span * (1 - smallest)
    geometry = GeometricTransform(crop_area=(smallest, largest), crop_aspect=(narrowest, widest))
    matrices = draw_matrices(geometry, 20, 1.5, seed)
    width, height = matrices[:, 0, 0], matrices[:, 1, 1]
    assert (width * height).min() >= smallest - 1e-5
    assert (width * height).max() <= largest + 1e-5
    corners = np.abs(matrices[:, :2, 2]) + np.stack([width, height], axis=1)
    assert corners.max() <= 1 + 1e-5


@given(seed=st.integers(0, 2**62))
@settings(deadline=None, max_examples=30)
def test_resampled_levels_stay_in_the_range_of_the_image(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 3, 9, 11, generator=generator) * 100 + 50
    strong = GeometricTransform(
        rotation=180,
        translation=1,
        zoom=(0.1, 10),
        shear=80,
        perspective=1,
        crop_area=(0, 1),
        horizontal_flip=0.5,
    )
    result = resample(images, draw_matrices(strong, 3, 11 / 9, seed))
    assert images.min() - 0.01 <= result.min() <= result.max() <= images.max() + 0.01
