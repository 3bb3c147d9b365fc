"""BatchDataset that a thread makes ready on a GPU while the step before them runs.

A step of a small network keeps a fast GPU waiting for the host, which gathers, pins, moves and augments in between. Its
backward pass runs outside Python, though, so that a second thread has that time for the next batch, on a CUDA stream
of its own. What it brings is measured by `benchmarks/training.py overhead --trainer gpu`.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device

from cls_data.loading.batches import ClassificationBatch, StoredBatch

Prepare = Callable[[StoredBatch], ClassificationBatch]

_AHEAD = 1
"""BatchDataset that wait for their turn; one more is being made. More would hold memory and gain nothing."""

_STEPS_IN_FLIGHT = 2
"""Steps that the host may have launched and the device not done. A host that runs further ahead, as it does where a
step is one CUDA graph, has a new batch's memory allocated for each, since no earlier one is free yet."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A batch, and when the device will have it ready; a CPU has it at once."""

    batch: ClassificationBatch
    ready: torch.cuda.Event | None


class DevicePrefetcher:
    """Iterates over batches, each made ready on the device before it is asked for; results are those without a thread.

    Args:
        batches: stored ones; the thread is the only one to ask for them.
        prepare: turns a batch that lies on the device into model input. It may not use what another thread changes.
        device: a CUDA device. A CPU gains nothing, since its cores are busy with the step.
    """

    def __init__(
        self, batches: Iterator[StoredBatch], prepare: Prepare, device: torch.device
    ) -> None:
        self._batches = batches
        self._prepare = prepare
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._made: queue.Queue[_Made | BaseException | None] = queue.Queue(_AHEAD)
        self._left = threading.Event()
        self._launched: deque[torch.cuda.Event] = deque()

    def __iter__(self) -> Iterator[ClassificationBatch]:
        """Yield the batches in order, and raise what the thread raised; leaving early ends the thread."""
        thread = threading.Thread(target=self._work, name="batches ahead", daemon=True)
        thread.start()
        try:
            while (made := self._made.get()) is not None:
                if isinstance(made, BaseException):
                    raise made
                self._wait_for(made)
                yield made.batch
                self._let_the_device_catch_up()
        finally:
            self._left.set()
            thread.join()

    def _wait_for(self, made: _Made) -> None:
        """Let the stream of the step, not the host, wait for the batch."""
        if made.ready is None:
            return
        here = torch.cuda.current_stream(self._device)
        here.wait_event(made.ready)
        for tensor in cast("dict[str, torch.Tensor]", made.batch).values():
            tensor.record_stream(
                here
            )  # or its memory would be given to a later batch while it is still read

    def _let_the_device_catch_up(self) -> None:
        """Wait for a step before the latest; the device has those after it to go on with."""
        if self._stream is None:
            return
        self._launched.append(torch.cuda.current_stream(self._device).record_event())
        if len(self._launched) > _STEPS_IN_FLIGHT:
            self._launched.popleft().synchronize()

    def _work(self) -> None:
        try:
            with ExitStack() as stack:
                # The gradient mode, the device and the stream are a thread's own.
                stack.enter_context(torch.no_grad())
                if self._stream is not None:
                    stack.enter_context(torch.cuda.device(self._device))
                    stack.enter_context(torch.cuda.stream(self._stream))
                for batch in self._batches:
                    made = self._prepare(move_data_to_device(batch, self._device))
                    ready = None if self._stream is None else self._stream.record_event()
                    if not self._hand_over(_Made(made, ready)):
                        return
            self._hand_over(None)
        except BaseException as error:  # for the thread that asks for the batches
            self._hand_over(error)

    def _hand_over(self, made: _Made | BaseException | None) -> bool:
        """Wait for a place, unless nobody asks any more."""
        while not self._left.is_set():
            try:
                self._made.put(made, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
