"""Training batches that are prepared together are those that are prepared one by one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from cls_data import (
    Augmentation,
    BroadcastAugmentation,
    LightAugmentation,
    MixupCutmix,
    PhotoAugmentation,
    TorchvisionAugmentation,
)
from cls_data.images.store import PixelRows
from cls_data.loading.batches import ClassificationBatch
from cls_data.loading.dataloaders import BatchDataset
from cls_data.loading.device_chunks import (
    ChunkPreparation,
    count_images_per_chunk,
    group_plans,
    keep_on_device,
)
from cls_data.loading.device_transform import DeviceTransform
from cls_data.loading.samplers import BatchPlan, EpochSampler
from cls_export import Preprocessing

PIPELINES = (
    BroadcastAugmentation(),
    LightAugmentation(),
    PhotoAugmentation(),
    TorchvisionAugmentation(transform=v2.TrivialAugmentWide()),
    None,
)
CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(size=(16, 12), mean=(0.5, 0.4, 0.3), std=(0.3, 0.3, 0.3))


def build_preparation(
    augmentation: Augmentation | None, *, mixing: bool = False, device: torch.device = CPU
) -> ChunkPreparation:
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (40, 3, 14, 10), generator=generator, dtype=torch.uint8)
    rows = keep_on_device(PixelRows(pixels), device)
    transform = DeviceTransform(
        PREPROCESSING, augmentation, MixupCutmix(probability=1) if mixing else None
    )
    dataset = BatchDataset(rows, torch.arange(40) % 3, pinned=device.type == "cuda")
    return ChunkPreparation(dataset, transform, device, lambda: PREPROCESSING.size, 3)


def prepare_epoch(
    preparation: ChunkPreparation, plans: list[BatchPlan], max_images: int
) -> list[ClassificationBatch]:
    batches = []
    for chunk in group_plans(plans, max_images):
        batches += preparation.prepare(chunk, preparation.get_size())
    return batches


def assert_equal_batches(
    batches: list[ClassificationBatch], expected: list[ClassificationBatch]
) -> None:
    for batch, other in zip(batches, expected, strict=True):
        assert batch.keys() == other.keys()
        assert batch.get("share") == other.get("share")
        for name in ("labels", "index"):
            assert torch.equal(batch[name], other[name])  # type: ignore[literal-required]
        # Larger inputs are summed in another order. The largest standardized level is about 3.
        torch.testing.assert_close(batch["images"], other["images"], rtol=0, atol=2e-3)
        if "targets" in other:
            torch.testing.assert_close(batch["targets"], other["targets"])


@settings(deadline=None, max_examples=40)
@given(
    pipeline=st.sampled_from(PIPELINES),
    mixing=st.booleans(),
    world_size=st.sampled_from([1, 1, 3]),
    max_images=st.integers(1, 50),
    seed=st.integers(0, 2**32),
)
def test_batches_do_not_depend_on_the_size_of_the_chunks(
    pipeline: Augmentation | None, mixing: bool, world_size: int, max_images: int, seed: int
) -> None:
    preparation = build_preparation(pipeline, mixing=mixing)
    plans = list(EpochSampler(40, 4, seed, rank=world_size - 1, world_size=world_size))
    alone = prepare_epoch(preparation, plans, max_images=1)
    assert_equal_batches(prepare_epoch(preparation, plans, max_images), alone)


@pytest.mark.parametrize("start", [1, 4, 9])
def test_an_epoch_that_starts_in_its_middle_has_the_same_batches(start: int) -> None:
    preparation = build_preparation(BroadcastAugmentation(), mixing=True)
    sampler = EpochSampler(40, 4, seed=2)
    whole = list(preparation.prefetch(sampler))
    sampler.start = start
    assert_equal_batches(list(preparation.prefetch(sampler)), whole[start:])


@given(count=st.integers(0, 60), batch_size=st.integers(1, 9), max_images=st.integers(1, 70))
def test_chunks_have_all_batches_in_order_within_the_limit(
    count: int, batch_size: int, max_images: int
) -> None:
    plans = [BatchPlan(torch.zeros(batch_size), seed) for seed in range(count)]
    chunks = list(group_plans(plans, max_images))
    assert [plan.seed for chunk in chunks for plan in chunk] == list(range(count))
    for chunk in chunks:
        assert 1 <= len(chunk) <= max(1, max_images // batch_size)
    if chunks:
        assert len(chunks[0]) == 1


def test_chunks_of_large_images_are_smaller() -> None:
    assert count_images_per_chunk(48, 32) == 2048
    assert count_images_per_chunk(224, 224) < 256


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_gpu_are_those_of_a_cpu() -> None:
    plans = list(EpochSampler(40, 4, seed=3))
    expected = prepare_epoch(build_preparation(LightAugmentation(), mixing=True), plans, 20)
    preparation = build_preparation(
        LightAugmentation(), mixing=True, device=torch.device("cuda", 0)
    )
    assert preparation.dataset.rows.pixels.is_cuda
    batches = list(preparation.prefetch(plans))
    for batch, other in zip(batches, expected, strict=True):
        torch.testing.assert_close(batch["images"].cpu(), other["images"], rtol=0, atol=0.05)
