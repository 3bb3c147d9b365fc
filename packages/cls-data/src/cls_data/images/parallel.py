"""Parallel work on ranges of rows, with ordered results and bounded memory."""

import multiprocessing
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
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

_worker_function: Callable[[int, int], Any] | None = None
"""The function that a worker process runs, inherited by the fork so that it is not pickled."""


def map_chunks(
    work: Callable[[int, int], Result], length: int, *, workers: int, progress: str | None = None
) -> Iterator[Result]:
    """Call `work(start, stop)` for consecutive ranges of `range(length)`; yield results in order.

    Uses forked processes on Linux if there are enough rows: decoding small crops is mostly Python,
    so threads would wait for each other. Uses threads elsewhere. `work` must not use PyTorch, whose
    thread pools do not survive a fork. `progress` is the label of a progress bar; None for no bar.

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

    with _create_executor(work, length, workers) as executor:
        is_process = isinstance(executor, ProcessPoolExecutor)
        function: Callable[[int, int], Any] = _run_worker_function if is_process else work
        pending: deque[Future[Result]] = deque()
        try:
            for start, stop in ranges:
                pending.append(executor.submit(function, start, stop))
                if len(pending) > 2 * workers:  # unread results take memory
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                f"One of {workers} worker processes was killed, possibly because memory ran out. "
                "Start again with fewer workers"
            ) from error
        finally:
            for future in pending:
                future.cancel()


def _create_executor(work: Callable[[int, int], Any], length: int, workers: int) -> Executor:
    if sys.platform == "linux" and length >= _MIN_ROWS_FOR_PROCESSES:
        return _ForkExecutor(
            workers,
            mp_context=multiprocessing.get_context("fork"),
            initializer=_set_worker_function,
            initargs=(work,),
        )
    return ThreadPoolExecutor(workers)


class _ForkExecutor(ProcessPoolExecutor):
    """Process pool without Python 3.12's warning about forking a multithreaded process.

    Workers take no lock that another thread may hold.
    """

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", ".*use of fork\\(\\) may lead to deadlocks", DeprecationWarning
            )
            return super().submit(*args, **kwargs)


def _set_worker_function(work: Callable[[int, int], Any]) -> None:
    global _worker_function
    _worker_function = work


def _run_worker_function(start: int, stop: int) -> Any:
    assert _worker_function is not None
    return _worker_function(start, stop)
