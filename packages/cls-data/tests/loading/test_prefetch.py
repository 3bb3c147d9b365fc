import threading
from collections.abc import Iterator

import pytest
import torch

from cls_data.images.store import PixelRows
from cls_data.loading.batches import BatchShare, ClassificationBatch, StoredBatch
from cls_data.loading.dataloaders import BatchDataset
from cls_data.loading.prefetch import THREAD_NAME, DevicePrefetcher
from cls_data.loading.samplers import BatchPlan

CPU = torch.device("cpu")


def stored(count: int) -> Iterator[StoredBatch]:
    for number in range(count):
        rows = torch.tensor([number, number + 1])
        yield StoredBatch(
            images=torch.full((2, 3, 4, 4), number, dtype=torch.uint8), labels=rows, index=rows
        )


def prepare(batch: StoredBatch) -> ClassificationBatch:
    assert threading.current_thread() is not threading.main_thread()
    assert not torch.is_grad_enabled()
    return ClassificationBatch(
        images=batch["images"].float() / 2, labels=batch["labels"], index=batch["index"]
    )


def count_threads() -> int:
    return sum(thread.name == THREAD_NAME for thread in threading.enumerate())


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_prefetcher_yields_every_batch_in_order_and_stops_its_thread(count: int) -> None:
    seen = [
        int(batch["images"][0, 0, 0, 0] * 2)
        for batch in DevicePrefetcher(stored(count), prepare, CPU)
    ]
    assert seen == list(range(count))
    assert count_threads() == 0


def test_closing_the_iterator_stops_the_thread() -> None:
    batches = iter(DevicePrefetcher(stored(1000), prepare, CPU))
    next(batches)
    assert count_threads() == 1
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    assert count_threads() == 0


def test_an_exception_in_the_thread_is_raised_by_the_iterator() -> None:
    def fail_on_third(batch: StoredBatch) -> ClassificationBatch:
        if int(batch["index"][0]) == 2:
            raise RuntimeError("the third batch")
        return prepare(batch)

    batches = iter(DevicePrefetcher(stored(9), fail_on_third, CPU))
    assert [next(batches)["labels"][0] for _ in range(2)] == [0, 1]
    with pytest.raises(RuntimeError, match="the third batch"):
        next(batches)
    assert count_threads() == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_prefetched_batch_is_ready_on_the_current_cuda_stream(world_size: int) -> None:
    device = torch.device("cuda", 0)

    def slowly(batch: StoredBatch) -> ClassificationBatch:
        torch.cuda._sleep(20_000_000)
        prepared = prepare(batch)
        if world_size > 1:
            prepared["share"] = BatchShare(3, 2 * len(batch["labels"]), 0, world_size)
        return prepared

    for number, batch in enumerate(DevicePrefetcher(stored(50), slowly, device)):
        assert batch["images"].is_cuda
        assert float(batch["images"].mean()) == number / 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_batches_are_gathered_into_page_locked_memory() -> None:
    pixels = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 4, 4).contiguous()
    batches = BatchDataset(PixelRows(pixels), torch.arange(5), pinned=True)
    batch = batches[BatchPlan(torch.tensor([3, 1]), seed=None)]
    assert batch["images"].is_pinned()
    assert torch.equal(batch["images"], pixels[[3, 1]])
