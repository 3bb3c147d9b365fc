import multiprocessing
import os
import signal
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cls_data import DataError
from cls_data.images.parallel import CHUNK, map_chunks


@given(length=st.integers(0, 1500), workers=st.sampled_from([1, 2, 5]))
def test_every_row_is_worked_on_once_and_in_order(length: int, workers: int) -> None:
    if length >= 512:  # processes, which the example below has; not a hundred times
        workers = 1
    ranges = list(map_chunks(lambda start, stop: range(start, stop), length, workers=workers))
    assert [row for each in ranges for row in each] == list(range(length))
    assert all(0 < len(each) <= CHUNK for each in ranges)


@pytest.mark.parametrize("workers", [2, 5])
def test_many_rows_are_worked_on_by_other_processes_in_order(workers: int) -> None:
    def work(start: int, stop: int) -> tuple[int, list[int]]:
        time.sleep(0.02 * (start % 3))  # later ones may be ready sooner
        return os.getpid(), list(range(start, stop))

    results = list(map_chunks(work, 10 * CHUNK + 1, workers=workers))
    assert [row for _, rows in results for row in rows] == list(range(10 * CHUNK + 1))
    if sys.platform == "linux":
        assert os.getpid() not in {process for process, _ in results}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("length", [300, 1000])
def test_an_error_in_the_work_is_the_callers(workers: int, length: int) -> None:
    def work(start: int, stop: int) -> None:
        if start:
            raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"):
        list(map_chunks(work, length, workers=workers))


@pytest.mark.skipif(sys.platform != "linux", reason="threads do the work elsewhere")
def test_a_worker_that_is_killed_ends_in_an_error_and_not_in_a_hang() -> None:
    caller = os.getpid()

    def work(start: int, stop: int) -> int:
        if start == 2 * CHUNK and os.getpid() != caller:
            os.kill(os.getpid(), signal.SIGKILL)
        return start

    begin = time.monotonic()
    with pytest.raises(DataError, match="one of 2 worker processes was killed"):
        list(map_chunks(work, 40 * CHUNK, workers=2))
    assert time.monotonic() - begin < 10
    assert not multiprocessing.active_children()


def test_results_that_nobody_takes_are_not_piled_up() -> None:
    done = []

    def work(start: int, stop: int) -> None:
        done.append(start)

    results = map_chunks(work, 500 * CHUNK, workers=1)
    next(results)
    assert len(done) == 1


def test_a_caller_may_stop_early() -> None:
    results = map_chunks(lambda start, stop: start, 40 * CHUNK, workers=2)
    assert next(results) == 0
    results.close()
    assert not multiprocessing.active_children()
