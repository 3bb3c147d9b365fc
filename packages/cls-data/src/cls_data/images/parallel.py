"""Parallel work on ranges of rows, with ordered results and bounded memory."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress

from cls_data.errors import DataError

Result = TypeVar("Result")

CHUNK_SIZE = 128
"""Rows per call of the worker function."""

_MIN_ROWS_FOR_PROCESSES = 512
"""Starting processes takes about as long as decoding this many small crops."""

_PARENT_CHECK_INTERVAL = 1.0
"""Seconds between a worker's checks of its parent's process number."""

_worker_function: Callable[[int, int], Any] | None = None
"""The function that a worker process runs, inherited by the fork so that it is not pickled."""


def map_chunks(
    work: Callable[[int, int], Result], length: int, *, workers: int, progress: str | None = None
) -> Generator[Result]:
    """Call `work(start, stop)` for consecutive ranges of `range(length)`; yield results in order.

    Uses forked processes on Linux if there are enough rows: decoding small crops is mostly Python,
    so threads would wait for each other. Uses threads elsewhere. `work` must not use PyTorch, whose
    thread pools do not survive a fork. `progress` is the label of a progress bar; None for no bar.

    The processes end with the calling process, even if it is killed, and when the generator is
    closed: wrap it in `contextlib.closing`, so that an error in the loop closes it at once.

    Raises:
        DataError: A process was killed.
    """
    ranges = []
    for start in range(0, length, CHUNK_SIZE):
        stop = min(start + CHUNK_SIZE, length)
        ranges.append((start, stop))
    console = Console(stderr=True)
    with Progress(console=console, disable=progress is None) as bar:
        task = bar.add_task(progress or "", total=length)
        results = _compute(work, ranges, length, workers)
        for (start, stop), result in zip(ranges, results, strict=True):
            bar.advance(task, stop - start)
            yield result


def _compute(
    work: Callable[[int, int], Result], ranges: list[tuple[int, int]], length: int, workers: int
) -> Iterator[Result]:
    if workers == 1 or len(ranges) <= 1:
        for start, stop in ranges:
            yield work(start, stop)
        return

    lifeline = None
    if sys.platform == "linux" and length >= _MIN_ROWS_FOR_PROCESSES:
        lifeline = _Lifeline()
    executor = ThreadPoolExecutor(workers) if lifeline is None else _fork(work, workers, lifeline)
    function: Callable[[int, int], Any] = work if lifeline is None else _run_worker_function
    pending: deque[Future[Result]] = deque()
    try:
        for start, stop in ranges:
            pending.append(executor.submit(function, start, stop))
            if len(pending) > 2 * workers:  # unread results take memory
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BaseException as error:
        if lifeline is not None:
            lifeline.cut()  # do not wait for chunks that nobody needs
        if isinstance(error, BrokenProcessPool):
            raise DataError(
                f"One of {workers} worker processes was killed, possibly because memory ran out. "
                "Start again with fewer workers"
            ) from error
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        if lifeline is not None:
            lifeline.close()


class _Lifeline:
    """A pipe whose write end only the parent holds, so that its end tells workers to exit.

    The kernel closes it when the parent ends, whatever ends it.
    """

    def __init__(self) -> None:
        self.parent = os.getpid()
        self._read_end, self._write_end = os.pipe()
        self._is_cut = False

    def cut(self) -> None:
        """Make the workers exit."""
        if not self._is_cut:
            self._is_cut = True
            os.close(self._write_end)

    def close(self) -> None:
        """Close the pipe in the parent."""
        self.cut()
        os.close(self._read_end)

    def watch(self) -> None:
        """Exit with the parent. Called in a worker."""
        os.close(self._write_end)
        threading.Thread(target=self._exit_with_parent, daemon=True).start()

    def _exit_with_parent(self) -> None:
        is_cut = False
        # An unrelated process that was forked at the same time may hold the write end, too.
        while not is_cut and os.getppid() == self.parent:
            ready = multiprocessing.connection.wait([self._read_end], _PARENT_CHECK_INTERVAL)
            is_cut = bool(ready)
        os._exit(1)


def _fork(work: Callable[[int, int], Any], workers: int, lifeline: _Lifeline) -> Executor:
    return _ForkExecutor(
        workers,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_start_worker,
        initargs=(work, lifeline),
    )


class _ForkExecutor(ProcessPoolExecutor):
    """Process pool without Python 3.12's warning about forking a multithreaded process.

    Workers take no lock that another thread may hold: sys.stdin, which `multiprocessing` closes in
    each worker, is hidden while they start, because a thread may be waiting for input.
    """

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        stdin, sys.stdin = sys.stdin, None
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", ".*use of fork\\(\\) may lead to deadlocks", DeprecationWarning
                )
                return super().submit(*args, **kwargs)
        finally:
            sys.stdin = stdin


def _start_worker(work: Callable[[int, int], Any], lifeline: _Lifeline) -> None:
    global _worker_function
    _worker_function = work

    # The parent handles Ctrl-C, which a terminal sends to every process, and its handler of SIGTERM
    # would make the worker continue.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    lifeline.watch()


def _run_worker_function(start: int, stop: int) -> Any:
    assert _worker_function is not None
    return _worker_function(start, stop)
