import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional

from cls_data.images.resize import resize


def levels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(sum(shape))).float()


@pytest.mark.parametrize(
    ("stored", "size"),
    [
        ((64, 64), (128, 128)),
        ((128, 128), (224, 224)),
        ((17, 33), (64, 50)),
        ((40, 29), (41, 30)),
        ((32, 32), (32, 77)),
        ((32, 32), (77, 32)),
        ((1, 1), (9, 5)),
        ((2, 3), (300, 2 * 300)),
    ],
)
def test_enlarging_matches_bilinear_interpolation(
    stored: tuple[int, int], size: tuple[int, int]
) -> None:
    images = levels(11, 3, *stored)  # not a multiple of the images per step
    theirs = functional.interpolate(images, size, mode="bilinear")
    assert (resize(images, size) - theirs).abs().max() < 0.01


@given(
    stored=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    more=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
@settings(deadline=None, max_examples=50)
def test_enlarging_matches_bilinear_interpolation_at_any_size(
    stored: tuple[int, int], more: tuple[int, int]
) -> None:
    images = levels(2, 3, *stored)
    size = (stored[0] + more[0], stored[1] + more[1])
    theirs = functional.interpolate(images, size, mode="bilinear")
    assert (resize(images, size) - theirs).abs().max() < 0.01


@pytest.mark.parametrize(
    ("stored", "size"),
    [((64, 64), (32, 32)), ((65, 43), (31, 20)), ((64, 32), (32, 64)), ((30, 64), (64, 20))],
)
def test_shrinking_is_antialiased_like_pillow(
    stored: tuple[int, int], size: tuple[int, int]
) -> None:
    images = levels(3, 3, *stored)
    for one, image in zip(resize(images, size), images, strict=True):
        whole = Image.fromarray(image.permute(1, 2, 0).numpy().astype(np.uint8))
        theirs = np.asarray(whole.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        difference = np.abs(one.permute(1, 2, 0).numpy() - theirs)
        assert difference.max() <= 1.01  # Pillow rounds after each of two passes


def test_images_of_the_target_size_are_returned_unchanged() -> None:
    images = levels(2, 3, 9, 7)
    assert resize(images, (9, 7)) is images


def test_resize_accepts_noncontiguous_images_and_does_not_change_them() -> None:
    images = levels(2, 3, 20, 40)[:, :, ::2, 5:-5]
    before = images.clone()
    assert torch.allclose(
        resize(images, (50, 70)),
        functional.interpolate(before, (50, 70), mode="bilinear"),
        atol=0.01,
    )
    assert torch.equal(images, before)


def test_weights_cached_in_inference_mode_work_in_training() -> None:
    images = levels(2, 3, 13, 11)
    with torch.inference_mode():
        first = resize(images, (39, 31))
    weights = torch.ones(3, 1, 1, requires_grad=True)
    again = resize(images, (39, 31))
    (gradient,) = torch.autograd.grad((again * weights).sum(), weights)
    assert torch.allclose(gradient, again.sum(dim=(0, 2, 3))[:, None, None], rtol=1e-4)
    assert torch.equal(again, first)
