import subprocess
import sys

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
