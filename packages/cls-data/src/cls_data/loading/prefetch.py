"""Prepare batches on a GPU in a second thread, during the steps before.

Between the steps of a small network, a fast GPU waits for the host to gather, pin, move, and
augment the next batch. A second thread prepares batches on its own CUDA stream, several at once:
augmenting thousands of images takes a GPU little longer than augmenting 64.
`benchmarks/trainer_overhead.py --trainer gpu` measures the gain.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from cls_data.loading.batches import ClassificationBatch
from cls_data.loading.samplers import BatchPlan

Chunk = list[BatchPlan]
"""Batches that are prepared together."""

PrepareChunk = Callable[[Chunk], Sequence[ClassificationBatch]]
"""Turns a chunk into the model input of each of its batches."""

THREAD_NAME = "batch prefetcher"

_QUEUE_SIZE = 1
"""Chunks that wait; one more is in preparation. More would use memory without a gain."""

_MAX_PENDING_CHUNKS = 2
"""Chunks whose steps the host may launch ahead of the device. Without a limit, a host whose step is
one CUDA graph runs far ahead, and every chunk needs new memory because none is free yet."""


@dataclass(frozen=True, slots=True)
class _PreparedChunk:
    """The batches of a chunk, and the CUDA event after which they are ready; None on a CPU."""

    batches: Sequence[ClassificationBatch]
    ready: torch.cuda.Event | None


class DevicePrefetcher:
    """Iterate over batches that a thread prepares on the device in advance.

    Args:
        chunks: Plans of batches; only the thread reads them.
        prepare: Prepares a chunk on the device. Runs in the thread.
        device: A CUDA device. A CPU gains nothing, because the step uses all cores.
    """

    def __init__(
        self, chunks: Iterator[Chunk], prepare: PrepareChunk, device: torch.device
    ) -> None:
        self._chunks = chunks
        self._prepare = prepare
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._queue: queue.Queue[_PreparedChunk | BaseException | None] = queue.Queue(_QUEUE_SIZE)
        self._stopped = threading.Event()
        self._pending_chunks: deque[torch.cuda.Event] = deque()

    def __iter__(self) -> Iterator[ClassificationBatch]:
        """Yield the batches in order, and re-raise the thread's exception."""
        thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        thread.start()
        try:
            while (item := self._queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                self._wait_until_ready(item)
                yield from item.batches
                self._limit_pending_chunks()
        finally:
            self._stopped.set()
            thread.join()

    def _wait_until_ready(self, prepared: _PreparedChunk) -> None:
        """Make the current stream, but not the host, wait for the chunk."""
        if prepared.ready is None:
            return
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(prepared.ready)
        for batch in prepared.batches:
            for value in batch.values():
                if isinstance(value, torch.Tensor):
                    # Or the allocator would reuse the memory for a later chunk while it is read.
                    value.record_stream(stream)

    def _limit_pending_chunks(self) -> None:
        """Wait for an earlier chunk's steps if the host is too far ahead of the device."""
        if self._stream is None:
            return

        stream = torch.cuda.current_stream(self._device)
        event = stream.record_event()
        self._pending_chunks.append(event)
        if len(self._pending_chunks) > _MAX_PENDING_CHUNKS:
            self._pending_chunks.popleft().synchronize()

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                # Gradient mode, device, and stream are thread-local.
                stack.enter_context(torch.no_grad())
                if self._stream is not None:
                    stack.enter_context(torch.cuda.device(self._device))
                    stack.enter_context(torch.cuda.stream(self._stream))

                for chunk in self._chunks:
                    batches = self._prepare(chunk)
                    ready = None
                    if self._stream is not None:
                        ready = self._stream.record_event()
                    is_open = self._put(_PreparedChunk(batches, ready))
                    if not is_open:
                        return

            self._put(None)
        except BaseException as error:  # raised again in the thread that iterates
            self._put(error)

    def _put(self, item: _PreparedChunk | BaseException | None) -> bool:
        """Wait for space in the queue; return False if the iterator was closed."""
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
