import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


_PARENT = """
import os, signal, sys, time
from pathlib import Path
from cls_data.images.parallel import map_chunks
from cls_export.contract.commands import run_command

folder = Path(sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

def work(start, stop):
    (folder / str(os.getpid())).touch()
    time.sleep(120)

def consume():
    for _ in map_chunks(work, 2000, workers=3):
        pass

if sys.argv[2] == "error":
    def interrupt(number, frame):
        raise OSError(5, "an error while chunks are decoded")
    signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(2)

sys.exit(run_command("test", consume, wrong_input=()))
"""


def is_running(process: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{process}/stat").read_text()
        return status.rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms use threads")
@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        (signal.SIGQUIT, -signal.SIGQUIT),
        ("error", 1),
    ],
)
def test_workers_end_with_the_parent_whatever_ends_it(
    tmp_path: Path, ending: signal.Signals | str, code: int
) -> None:
    arguments = [sys.executable, "-c", _PARENT, str(tmp_path), str(ending)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE) as parent:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = [int(path.name) for path in tmp_path.iterdir()]
        assert len(workers) == 3
        if isinstance(ending, signal.Signals):
            parent.send_signal(ending)
        assert parent.wait(30) == code
        assert parent.stderr is not None
        assert b"KeyboardInterrupt" not in parent.stderr.read()

    deadline = time.monotonic() + 5
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [worker for worker in workers if is_running(worker)]


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms use threads")
def test_closing_does_not_wait_for_chunks_that_run() -> None:
    def work(start: int, stop: int) -> int:
        if start:
            time.sleep(120)
        return start

    results = map_chunks(work, 40 * CHUNK_SIZE, workers=2)
    assert next(results) == 0
    begin = time.monotonic()
    results.close()
    assert time.monotonic() - begin < 30
    assert not multiprocessing.active_children()


def test_workers_start_while_a_thread_waits_for_input() -> None:
    script = """
import sys, threading
from cls_data.images.parallel import map_chunks

threading.Thread(target=sys.stdin.buffer.read, daemon=True).start()
print(sum(map_chunks(lambda start, stop: stop - start, 600, workers=2)), flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert multiprocessing.connection.wait([process.stdout], timeout=60), "a worker waits"
        assert process.stdout.readline() == b"600\n"
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()
