"""BatchDataset that a thread makes ready: the same ones, in the same order, and nothing left behind."""

import threading
from collections.abc import Iterator

import pytest
import torch

from cls_data.images.store import PixelRows
from cls_data.loading.batches import ClassificationBatch, StoredBatch
from cls_data.loading.loaders import BatchDataset
from cls_data.loading.prefetch import DevicePrefetcher
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


def threads_ahead() -> int:
    return sum(thread.name == "batches ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_a_thread_hands_out_every_batch_in_order_and_ends(count: int) -> None:
    seen = [
        int(batch["images"][0, 0, 0, 0] * 2)
        for batch in DevicePrefetcher(stored(count), prepare, CPU)
    ]
    assert seen == list(range(count))
    assert threads_ahead() == 0


def test_leaving_early_ends_the_thread() -> None:
    batches = iter(DevicePrefetcher(stored(1000), prepare, CPU))
    next(batches)
    assert threads_ahead() == 1
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    assert threads_ahead() == 0


def test_what_goes_wrong_in_the_thread_is_raised_where_the_batch_is_asked_for() -> None:
    def refuse(batch: StoredBatch) -> ClassificationBatch:
        if int(batch["index"][0]) == 2:
            raise RuntimeError("the third batch")
        return prepare(batch)

    batches = iter(DevicePrefetcher(stored(9), refuse, CPU))
    assert [next(batches)["labels"][0] for _ in range(2)] == [0, 1]
    with pytest.raises(RuntimeError, match="the third batch"):
        next(batches)
    assert threads_ahead() == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_batch_is_ready_for_the_stream_that_asks_for_it() -> None:
    device = torch.device("cuda", 0)

    def slowly(batch: StoredBatch) -> ClassificationBatch:
        torch.cuda._sleep(20_000_000)
        return prepare(batch)

    for number, batch in enumerate(DevicePrefetcher(stored(50), slowly, device)):
        assert batch["images"].is_cuda
        assert float(batch["images"].mean()) == number / 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_for_a_gpu_rows_are_gathered_into_page_locked_memory() -> None:
    pixels = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 4, 4).contiguous()
    batches = BatchDataset(PixelRows(pixels), torch.arange(5), pinned=True)
    batch = batches[BatchPlan(torch.tensor([3, 1]), seed=None)]
    assert batch["images"].is_pinned()
    assert torch.equal(batch["images"], pixels[[3, 1]])
