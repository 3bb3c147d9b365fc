import subprocess
import sys

import pytest

IDLE_POOL = """
import atexit
from concurrent.futures import ThreadPoolExecutor
from cls_train.process import run_and_exit

pool = ThreadPoolExecutor()
atexit.register(print, "at exit")
run_and_exit(lambda: pool.submit(print, "done").result())
"""


def test_exit_stops_idle_thread_pools_and_runs_exit_functions() -> None:
    command = [sys.executable, "-c", IDLE_POOL]
    process = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert process.stdout.split("\n") == ["done", "at exit", ""]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 143), ("SIGINT", 130)])
def test_a_signal_during_slow_imports_ends_the_process_without_an_exception(
    name: str, code: int
) -> None:
    program = f"""
import os, signal
from cls_train.process import immediate_exit_on_signals
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
before = signal.getsignal(signal.{name})
with immediate_exit_on_signals():
    pass
assert signal.getsignal(signal.{name}) == before
with immediate_exit_on_signals():
    try:
        os.kill(os.getpid(), signal.{name})
    finally:
        print("an exception was raised", flush=True)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (code, "", "")
