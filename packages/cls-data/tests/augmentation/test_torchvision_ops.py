from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cls_data import TorchvisionOps


@pytest.fixture(params=["TrivialAugmentWide", "RandAugment"])
def augment(request: pytest.FixtureRequest) -> TorchvisionOps:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    return TorchvisionOps(transform=getattr(transforms, request.param)())


@pytest.fixture
def images() -> Tensor:
    return torch.randint(
        0, 256, (16, 3, 24, 18), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_sample_has_parameters_of_its_own(augment: TorchvisionOps, images: Tensor) -> None:
    changed = augment(images[:1].expand(16, -1, -1, -1), seeded(0))
    assert (changed.dtype, changed.shape) == (torch.float32, images.shape)
    assert 0 <= changed.min() <= changed.max() <= 255
    assert len({bytes(image.to(torch.uint8).flatten().tolist()) for image in changed}) > 8


def test_the_same_seed_gives_the_same_images_whatever_was_drawn_elsewhere(
    augment: TorchvisionOps, images: Tensor
) -> None:
    before = images.clone()
    first = augment(images, seeded(1))
    torch.rand(7)
    assert torch.equal(augment(images, seeded(1)), first)
    assert not torch.equal(augment(images, seeded(2)), first)
    assert torch.equal(images, before)


def test_the_global_generator_is_left_as_it_was(augment: TorchvisionOps, images: Tensor) -> None:
    state = torch.get_rng_state()
    augment(images, seeded(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_global_generator_is_left_as_it_was_by_a_transform_that_fails(images: Tensor) -> None:
    class Fails(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            torch.rand(1)
            raise RuntimeError("on purpose")

    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="on purpose"):
        TorchvisionOps(transform=Fails())(images, seeded(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_generator_given_advances_alike_for_any_transform(
    augment: TorchvisionOps, images: Tensor
) -> None:
    generators = [seeded(0), seeded(0)]
    augment(images, generators[0])
    TorchvisionOps(transform=nn.Identity())(images, generators[1])
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_what_is_no_module_is_refused_by_name() -> None:
    wrong: Any = "RandAugment"
    with pytest.raises(ValueError, match="transform"):
        TorchvisionOps(transform=wrong)
