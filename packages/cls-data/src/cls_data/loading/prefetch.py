"""Prepare batches on a GPU in a second thread, during the previous step.

Between the steps of a small network, a fast GPU waits for the host to gather, pin, move, and
augment the next batch. The backward pass runs outside Python, which gives a second thread time to
prepare that batch on its own CUDA stream. `benchmarks/trainer_overhead.py --trainer gpu` measures
the gain.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device

from cls_data.loading.batches import ClassificationBatch, StoredBatch

PrepareBatch = Callable[[StoredBatch], ClassificationBatch]

THREAD_NAME = "batch prefetcher"

_QUEUE_SIZE = 1
"""Batches that wait; one more is in preparation. More would use memory without a gain."""

_MAX_PENDING_STEPS = 2
"""Steps that the host may launch ahead of the device. Without a limit, a host whose step is one
CUDA graph runs far ahead, and every batch needs new memory because none is free yet."""


@dataclass(frozen=True, slots=True)
class _PreparedBatch:
    """A batch, and the CUDA event after which it is ready; None on a CPU."""

    batch: ClassificationBatch
    ready: torch.cuda.Event | None


class DevicePrefetcher:
    """Iterate over batches that a thread prepares on the device in advance.

    Yields the same batches as preparing them in the caller's thread.

    Args:
        batches: Stored batches; only the thread reads them.
        prepare: Turns a stored batch on the device into model input. Runs in the thread.
        device: A CUDA device. A CPU gains nothing, because the step uses all cores.
    """

    def __init__(
        self, batches: Iterator[StoredBatch], prepare: PrepareBatch, device: torch.device
    ) -> None:
        self._batches = batches
        self._prepare = prepare
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._queue: queue.Queue[_PreparedBatch | BaseException | None] = queue.Queue(_QUEUE_SIZE)
        self._stopped = threading.Event()
        self._pending_steps: deque[torch.cuda.Event] = deque()

    def __iter__(self) -> Iterator[ClassificationBatch]:
        """Yield the batches in order, and re-raise the thread's exception."""
        thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        thread.start()
        try:
            while (item := self._queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                self._wait_until_ready(item)
                yield item.batch
                self._limit_pending_steps()
        finally:
            self._stopped.set()
            thread.join()

    def _wait_until_ready(self, prepared: _PreparedBatch) -> None:
        """Make the current stream, but not the host, wait for the batch."""
        if prepared.ready is None:
            return
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(prepared.ready)
        for value in prepared.batch.values():
            if isinstance(value, torch.Tensor):
                # Or the allocator would reuse the memory for a later batch while it is still read.
                value.record_stream(stream)

    def _limit_pending_steps(self) -> None:
        """Wait for an earlier step if the host is too far ahead of the device."""
        if self._stream is None:
            return

        stream = torch.cuda.current_stream(self._device)
        event = stream.record_event()
        self._pending_steps.append(event)
        if len(self._pending_steps) > _MAX_PENDING_STEPS:
            self._pending_steps.popleft().synchronize()

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                # Gradient mode, device, and stream are thread-local.
                stack.enter_context(torch.no_grad())
                if self._stream is not None:
                    stack.enter_context(torch.cuda.device(self._device))
                    stack.enter_context(torch.cuda.stream(self._stream))

                for batch in self._batches:
                    batch = move_data_to_device(batch, self._device)
                    prepared = self._prepare(batch)
                    ready = None
                    if self._stream is not None:
                        ready = self._stream.record_event()
                    is_open = self._put(_PreparedBatch(prepared, ready))
                    if not is_open:
                        return

            self._put(None)
        except BaseException as error:  # raised again in the thread that iterates
            self._put(error)

    def _put(self, item: _PreparedBatch | BaseException | None) -> bool:
        """Wait for space in the queue; return False if the iterator was closed."""
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
