import multiprocessing
import os
import signal
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cls_data import DataError
from cls_data.images.parallel import CHUNK_SIZE, map_chunks


@given(length=st.integers(0, 1500), workers=st.sampled_from([1, 2, 5]))
def test_map_chunks_covers_every_row_once_in_order(length: int, workers: int) -> None:
    if length >= 512:  # avoid starting processes for every example
        workers = 1
    ranges = list(map_chunks(lambda start, stop: range(start, stop), length, workers=workers))
    assert [row for each in ranges for row in each] == list(range(length))
    assert all(0 < len(each) <= CHUNK_SIZE for each in ranges)


@pytest.mark.parametrize("workers", [2, 5])
def test_map_chunks_uses_processes_for_many_rows_and_preserves_order(workers: int) -> None:
    def work(start: int, stop: int) -> tuple[int, list[int]]:
        time.sleep(0.02 * (start % 3))  # later chunks may finish first
        return os.getpid(), list(range(start, stop))

    results = list(map_chunks(work, 10 * CHUNK_SIZE + 1, workers=workers))
    assert [row for _, rows in results for row in rows] == list(range(10 * CHUNK_SIZE + 1))
    if sys.platform == "linux":
        assert os.getpid() not in {process for process, _ in results}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("length", [300, 1000])
def test_map_chunks_reraises_an_error_of_the_work(workers: int, length: int) -> None:
    def work(start: int, stop: int) -> None:
        if start:
            raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"):
        list(map_chunks(work, length, workers=workers))


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms use threads")
def test_map_chunks_raises_instead_of_hanging_when_a_worker_is_killed() -> None:
    caller = os.getpid()

    def work(start: int, stop: int) -> int:
        if start == 2 * CHUNK_SIZE and os.getpid() != caller:
            os.kill(os.getpid(), signal.SIGKILL)
        return start

    begin = time.monotonic()
    with pytest.raises(DataError, match="One of 2 worker processes was killed"):
        list(map_chunks(work, 40 * CHUNK_SIZE, workers=2))
    assert time.monotonic() - begin < 10
    assert not multiprocessing.active_children()


def test_map_chunks_does_not_run_ahead_of_its_consumer() -> None:
    done = []

    def work(start: int, stop: int) -> None:
        done.append(start)

    results = map_chunks(work, 500 * CHUNK_SIZE, workers=1)
    next(results)
    assert len(done) == 1


def test_map_chunks_can_be_closed_early() -> None:
    results = map_chunks(lambda start, stop: start, 40 * CHUNK_SIZE, workers=2)
    assert next(results) == 0
    results.close()
    assert not multiprocessing.active_children()
