"""Evaluate a run in a clean Python process, which can start before training does.

Importing PyTorch and Lightning takes several seconds. A process that starts with the app imports
them while the app imports, checks, and trains. It receives only the path of the run.
"""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cls_export.contract.run_layout import RunPaths
from cls_train.errors import RunError
from cls_train.process import paused_garbage_collection, run_and_exit

_waiting: "subprocess.Popen[str] | None" = None


def start_early(arguments: Sequence[str]) -> None:
    """Start a process that waits for a run, unless the command line turns evaluation off."""
    global _waiting
    if "stages.evaluate=false" not in arguments and _waiting is None:
        _waiting = _start()


def stop() -> None:
    """Stop the process if it waits for a run."""
    global _waiting
    process, _waiting = _waiting, None
    if process is not None:
        process.kill()
        process.communicate()


def evaluate_in_clean_process(run: RunPaths, allow_targets: Sequence[str]) -> dict[str, Any]:
    """Evaluate a run, and return the content of evaluation.json.

    Args:
        run: The trained run.
        allow_targets: Packages of the user whose classes its configuration may name.

    Raises:
        RunError: The evaluation failed. The process has printed the reason.
    """
    global _waiting
    process, _waiting = _waiting, None
    if process is None or process.poll() is not None:
        process = _start()

    request = json.dumps({"run": str(run.path), "allow_targets": list(allow_targets)})
    try:
        process.communicate(f"{request}\n")
    finally:
        process.kill()  # if this process was interrupted
        process.wait()

    if process.returncode != 0:
        raise RunError(
            f"evaluating {run.best} failed (see above), so the run is not finished. After fixing "
            f"the cause, repeat the command with run.name={run.path.name} to resume from here"
        )
    evaluation: dict[str, Any] = json.loads(run.evaluation.read_bytes())
    return evaluation


def _start() -> "subprocess.Popen[str]":
    # -P: with -m alone, a statistics.py in the working directory would replace Python's.
    command = [sys.executable, "-P", "-m", "cls_train.stages.evaluation_process"]
    if threading.current_thread() is not threading.main_thread():
        return subprocess.Popen(command, stdin=subprocess.PIPE, text=True)

    # Ctrl-C reaches the whole process group. This process handles it, and stops the other one.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, handler)


def _evaluate_requested_run() -> None:
    """Load everything that evaluation needs, then wait for the app's request and evaluate."""
    with paused_garbage_collection():
        from cls_train.console import exit_on_user_error
        from cls_train.stages.evaluate import evaluate_and_write, warm_up_exporter

        warm_up_exporter()
    line = sys.stdin.readline()
    if not line:  # the app ended without a request
        return
    request = json.loads(line)
    run = RunPaths(Path(request["run"]))
    evaluate = exit_on_user_error(lambda: evaluate_and_write(run, request["allow_targets"]))
    evaluate()


if __name__ == "__main__":
    run_and_exit(_evaluate_requested_run)
