"""The same work for many rows, on all cores, with results in order and little of them in memory."""

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

CHUNK = 128
"""Rows that one call works on."""

_WORTH_A_PROCESS = 512
"""Rows; starting processes costs about as long as decoding that many small crops."""

_job: Callable[[int, int], Any] | None = None
"""What a worker process runs; set before it is forked, so that it need not be pickled."""


def map_chunks(
    work: Callable[[int, int], Result], length: int, *, workers: int, progress: str | None = None
) -> Iterator[Result]:
    """Call `work(start, stop)` for consecutive ranges of 0 to `length` and yield the results in order.

    Forked processes do the work, where there are such and it is worth it: of a small crop's decoding most is Python,
    and threads would only take turns. Elsewhere threads do.

    Args:
        work: must not touch PyTorch, whose thread pools do not survive a fork.
        length: number of rows.
        workers: processes or threads.
        progress: text beside a progress bar; None for no bar.

    Raises:
        DataError: a process was killed.
    """
    ranges = [(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK)]
    with Progress(console=Console(stderr=True), disable=progress is None) as bar:
        task = bar.add_task(progress or "", total=length)
        for (start, stop), result in zip(
            ranges, _results(work, ranges, length, workers), strict=True
        ):
            bar.advance(task, stop - start)
            yield result


def _results(
    work: Callable[[int, int], Result], ranges: list[tuple[int, int]], length: int, workers: int
) -> Iterator[Result]:
    if workers == 1 or len(ranges) <= 1:
        yield from (work(*each) for each in ranges)
        return
    with _executor(work, length, workers) as pool:
        task: Callable[[int, int], Any] = _run if isinstance(pool, ProcessPoolExecutor) else work
        waiting: deque[Future[Result]] = deque()
        try:
            for each in ranges:
                waiting.append(pool.submit(task, *each))
                if len(waiting) > 2 * workers:  # results that nobody has taken yet are memory
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                f"one of {workers} worker processes was killed, maybe for want of memory; start again with fewer"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _executor(work: Callable[[int, int], Any], length: int, workers: int) -> Executor:
    if sys.platform == "linux" and length >= _WORTH_A_PROCESS:
        fork = multiprocessing.get_context("fork")
        return _QuietForks(workers, mp_context=fork, initializer=_set_job, initargs=(work,))
    return ThreadPoolExecutor(workers)


class _QuietForks(ProcessPoolExecutor):
    """Without Python 3.12's warning that a fork of many threads may hang: ours takes no lock of theirs."""

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", ".*use of fork\\(\\) may lead to deadlocks", DeprecationWarning
            )
            return super().submit(*args, **kwargs)


def _set_job(work: Callable[[int, int], Any]) -> None:
    global _job
    _job = work


def _run(start: int, stop: int) -> Any:
    assert _job is not None
    return _job(start, stop)
