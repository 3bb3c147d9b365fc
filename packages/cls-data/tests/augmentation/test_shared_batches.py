"""A sample is augmented alike on any number of devices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from cls_data import (
    Augmentation,
    BroadcastAugmentation,
    LightAugmentation,
    PhotoAugmentation,
    TorchvisionAugmentation,
)
from cls_data.augmentation.random_streams import ParamSampler
from cls_data.loading.samplers import EpochSampler

PIPELINES = (
    BroadcastAugmentation(),
    LightAugmentation(),
    PhotoAugmentation(),
    TorchvisionAugmentation(transform=v2.TrivialAugmentWide()),
)


@settings(deadline=None, max_examples=40)
@given(
    pipeline=st.sampled_from(PIPELINES),
    world_size=st.integers(2, 5),
    per_rank=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_samples_do_not_depend_on_the_number_of_devices(
    pipeline: Augmentation, world_size: int, per_rank: int, seed: int
) -> None:
    batch_size = world_size * per_rank
    generator = torch.Generator().manual_seed(seed)
    shape = (2 * batch_size, 3, 12, 10)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    alone = list(EpochSampler(len(images), batch_size, seed))
    expected = augment(pipeline, images, alone)

    shared = torch.empty_like(expected)
    for rank in range(world_size):
        sampler = EpochSampler(len(images), per_rank, seed, rank=rank, world_size=world_size)
        shared[:, rank::world_size] = augment(pipeline, images, list(sampler))
    # Chunks of another size are summed in another order.
    torch.testing.assert_close(shared, expected, rtol=0, atol=1e-2)


def augment(pipeline: Augmentation, images: Tensor, plans: list) -> Tensor:
    """Return the augmented images of all batches: float32 [batches, B, 3, H, W]."""
    batches = []
    for plan in plans:
        rows = images[plan.index]
        if plan.share is None:
            batches.append(pipeline(rows, plan.seed))
        else:
            batches.append(pipeline.augment_share(rows, plan.seed, plan.share))
    return torch.stack(batches)


class OwnAugmentation(Augmentation):
    """Knows nothing of several devices."""

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
        return images + noise


def test_an_augmentation_that_ignores_sharing_draws_differently_on_every_device() -> None:
    images = torch.zeros((8, 3, 4, 4), dtype=torch.uint8)
    results = []
    for rank in range(2):
        sampler = EpochSampler(8, 4, seed=1, rank=rank, world_size=2)
        results.append(augment(OwnAugmentation(), images, list(sampler)))
    assert not torch.equal(results[0], results[1])


def test_a_shared_batch_cannot_be_permuted() -> None:
    (plan,) = EpochSampler(4, 2, seed=1, rank=0, world_size=2)
    with pytest.raises(ValueError, match="cannot be permuted"):
        ParamSampler(2, 1, "mixing", plan.share).permutation()
