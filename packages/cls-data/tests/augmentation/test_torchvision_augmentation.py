from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cls_data import TorchvisionAugmentation


@pytest.fixture(params=["TrivialAugmentWide", "RandAugment"])
def augment(request: pytest.FixtureRequest) -> TorchvisionAugmentation:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    return TorchvisionAugmentation(transform=getattr(transforms, request.param)())


@pytest.fixture
def images() -> Tensor:
    return torch.randint(
        0, 256, (16, 3, 24, 18), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_every_sample_has_its_own_parameters(
    augment: TorchvisionAugmentation, images: Tensor
) -> None:
    changed = augment(images[:1].expand(16, -1, -1, -1), 0)
    assert (changed.dtype, changed.shape) == (torch.float32, images.shape)
    assert 0 <= changed.min() <= changed.max() <= 255
    assert len({bytes(image.to(torch.uint8).flatten().tolist()) for image in changed}) > 8


def test_same_seed_gives_same_images_for_any_global_random_state(
    augment: TorchvisionAugmentation, images: Tensor
) -> None:
    before = images.clone()
    first = augment(images, 1)
    torch.rand(7)
    assert torch.equal(augment(images, 1), first)
    assert not torch.equal(augment(images, 2), first)
    assert torch.equal(images, before)


def test_global_random_state_is_restored(augment: TorchvisionAugmentation, images: Tensor) -> None:
    state = torch.get_rng_state()
    augment(images, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_global_random_state_is_restored_when_a_transform_raises(images: Tensor) -> None:
    class FailingTransform(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            torch.rand(1)
            raise RuntimeError("on purpose")

    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="on purpose"):
        TorchvisionAugmentation(transform=FailingTransform())(images, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_transform_that_is_not_a_module_is_rejected_by_name() -> None:
    wrong: Any = "RandAugment"
    with pytest.raises(ValueError, match="transform"):
        TorchvisionAugmentation(transform=wrong)
