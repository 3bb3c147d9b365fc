import threading
from collections.abc import Iterator

import pytest
import torch

from cls_data.images.store import PixelRows
from cls_data.loading.batches import BatchShare, ClassificationBatch
from cls_data.loading.dataloaders import BatchDataset
from cls_data.loading.prefetch import THREAD_NAME, Chunk, DevicePrefetcher
from cls_data.loading.samplers import BatchPlan

CPU = torch.device("cpu")


def chunks(count: int, batches_per_chunk: int = 1) -> Iterator[Chunk]:
    plans = [BatchPlan(torch.tensor([number, number + 1]), seed=number) for number in range(count)]
    for start in range(0, count, batches_per_chunk):
        yield plans[start : start + batches_per_chunk]


def prepare(chunk: Chunk) -> list[ClassificationBatch]:
    assert threading.current_thread() is not threading.main_thread()
    assert not torch.is_grad_enabled()
    batches = []
    for plan in chunk:
        images = plan.index.float()[:, None, None, None].expand(2, 3, 4, 4)
        batches.append(ClassificationBatch(images=images, labels=plan.index, index=plan.index))
    return batches


def count_threads() -> int:
    return sum(thread.name == THREAD_NAME for thread in threading.enumerate())


@pytest.mark.parametrize("batches_per_chunk", [1, 4])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_prefetcher_yields_every_batch_in_order_and_stops_its_thread(
    count: int, batches_per_chunk: int
) -> None:
    prefetcher = DevicePrefetcher(chunks(count, batches_per_chunk), prepare, CPU)
    seen = [int(batch["images"][0, 0, 0, 0]) for batch in prefetcher]
    assert seen == list(range(count))
    assert count_threads() == 0


def test_closing_the_iterator_stops_the_thread() -> None:
    batches = iter(DevicePrefetcher(chunks(1000), prepare, CPU))
    next(batches)
    assert count_threads() == 1
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    assert count_threads() == 0


def test_an_exception_in_the_thread_is_raised_by_the_iterator() -> None:
    def fail_on_third(chunk: Chunk) -> list[ClassificationBatch]:
        if chunk[0].seed == 2:
            raise RuntimeError("the third batch")
        return prepare(chunk)

    batches = iter(DevicePrefetcher(chunks(9), fail_on_third, CPU))
    assert [next(batches)["labels"][0] for _ in range(2)] == [0, 1]
    with pytest.raises(RuntimeError, match="the third batch"):
        next(batches)
    assert count_threads() == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_prefetched_batch_is_ready_on_the_current_cuda_stream(world_size: int) -> None:
    device = torch.device("cuda", 0)

    def slowly(chunk: Chunk) -> list[ClassificationBatch]:
        batches = []
        for plan in chunk:
            index = plan.index.pin_memory().to(device, non_blocking=True)
            torch.cuda._sleep(20_000_000)
            images = index.float()[:, None, None, None].expand(2, 3, 4, 4).contiguous()
            batch = ClassificationBatch(images=images, labels=index, index=index)
            if world_size > 1:
                batch["share"] = BatchShare(3, 2 * len(index), 0, world_size)
            batches.append(batch)
        return batches

    for number, batch in enumerate(DevicePrefetcher(chunks(50, 4), slowly, device)):
        assert batch["images"].is_cuda
        assert float(batch["images"].mean()) == number + 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_batches_are_gathered_into_page_locked_memory() -> None:
    pixels = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 4, 4).contiguous()
    batches = BatchDataset(PixelRows(pixels), torch.arange(5), pinned=True)
    batch = batches[BatchPlan(torch.tensor([3, 1]), seed=None)]
    assert batch["images"].is_pinned()
    assert torch.equal(batch["images"], pixels[[3, 1]])
