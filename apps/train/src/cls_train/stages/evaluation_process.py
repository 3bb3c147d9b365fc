"""Evaluate a run in a clean Python process, which starts before training ends.

Importing PyTorch and Lightning takes several seconds. The process of a short run starts with the
app, and imports them while the app imports, checks, and trains. That of a longer run on a GPU
starts shortly before training ends; see `stages.evaluation_starter`. Otherwise it starts after
training. The process receives only the path of the run. Its errors are raised in the app, which
reports them like its own.
"""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cls_export.contract.run_layout import RunPaths
from cls_train.distributed.environment import standalone_environment
from cls_train.errors import RunFailedError
from cls_train.process import (
    end_with_parent,
    import_torchmetrics,
    paused_garbage_collection,
    run_and_exit,
)

MAX_SHORT_EPOCHS = 10
"""A waiting process takes 0.6 GB, which is not worth it during a long run."""

_waiting: "subprocess.Popen[bytes] | None" = None


class _RemoteError(Exception):
    """The traceback of an error in the evaluation process, as the cause of that error."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def is_short(trainer: Mapping[str, Any]) -> bool:
    """Whether the settings of a trainer are those of a run whose process starts with the app."""
    epochs = trainer.get("max_epochs")
    return isinstance(epochs, int) and epochs <= MAX_SHORT_EPOCHS


def start() -> None:
    """Start a process that waits for a run, unless one does already."""
    global _waiting
    if _waiting is None:
        _waiting = _start()


def stop() -> None:
    """Stop the process if it waits for a run."""
    global _waiting
    process, _waiting = _waiting, None
    if process is not None:
        _end(process)


def evaluate_in_clean_process(
    run: RunPaths, allow_targets: Sequence[str], meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Evaluate a run, and write evaluation.json.

    Args:
        run: The trained run.
        allow_targets: Packages of the user whose classes its configuration may name.
        meanwhile: Called while the process works.

    Raises:
        RunFailedError: The process was killed.
        Exception: Any error of `stages.evaluate.evaluate_and_write`.
    """
    global _waiting
    process, _waiting = _waiting, None
    if process is None or process.poll() is not None:
        process = _start()

    try:
        _send_request(process, run, allow_targets)
        meanwhile()
        answer = _wait_for_answer(process)
    finally:
        _end(process)  # it still runs if this process was interrupted

    if not answer:
        raise RunFailedError(_describe_death(process.returncode, run))
    error, text = pickle.loads(answer)
    if error is not None:
        raise error from _RemoteError(text)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill the process. Does not wait for the end of its answer, which its workers hold open."""
    process.kill()
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
            if stream is not None:
                stream.close()
    process.wait()


def _send_request(
    process: "subprocess.Popen[bytes]", run: RunPaths, allow_targets: Sequence[str]
) -> None:
    assert process.stdin is not None
    request = json.dumps({"run": str(run.path), "allow_targets": list(allow_targets)})
    with contextlib.suppress(BrokenPipeError):  # it has failed already, and answered
        process.stdin.write(f"{request}\n".encode())
        process.stdin.flush()  # not closed: its end tells the process that this one has died


def _wait_for_answer(process: "subprocess.Popen[bytes]") -> bytes:
    """Return the answer; it is empty if the process dies."""
    assert process.stdout is not None
    answer = process.stdout.read()
    process.wait()
    return answer


def _describe_death(code: int, run: RunPaths) -> str:
    cause = f"with exit code {code}"
    if code < 0:
        cause = f"by signal {-code} ({signal.strsignal(-code)})"
    if code == -signal.SIGKILL:
        cause += ", often because the machine is out of memory"
    return (
        f"the process that evaluates {run.best} was ended {cause}. Repeat the command with "
        f"run.name={run.path.name} to evaluate again, without training again"
    )


def _start() -> "subprocess.Popen[bytes]":
    # -P: with -m alone, a statistics.py in the working directory would replace Python's.
    command = [sys.executable, "-P", "-m", "cls_train.stages.evaluation_process"]
    with standalone_environment():
        return _open(command)


def _open(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    if threading.current_thread() is not threading.main_thread():
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    # Ctrl-C reaches the whole process group. This process handles it, and stops the other one.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, handler)


def _answer_request() -> None:
    """Wait for the app's request, evaluate, and answer with the error, if there was one."""
    # The answer has the pipe for itself: whatever is printed goes to stderr.
    answer_stream = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    end_with_parent()

    error: Exception | None = None
    text = ""
    try:
        if not _evaluate_requested_run():
            return
    except Exception as caught:
        error = caught
        text = "".join(traceback.format_exception(caught))
    with contextlib.suppress(BrokenPipeError), answer_stream:
        answer_stream.write(_pack(error, text))


def _evaluate_requested_run() -> bool:
    """Load everything that evaluation needs, then wait for the request and evaluate.

    Returns:
        Whether there was a request.
    """
    with paused_garbage_collection():
        import_torchmetrics()
        from cls_train.stages.evaluate import evaluate_and_write, warm_up_exporter

        warm_up_exporter()
    line = sys.stdin.readline()
    if not line:  # the app ended
        return False
    _exit_at_end_of(sys.stdin.fileno())
    request = json.loads(line)
    evaluate_and_write(RunPaths(Path(request["run"])), request["allow_targets"])
    return True


def _pack(error: Exception | None, text: str) -> bytes:
    try:
        packed = pickle.dumps((error, text))
        pickle.loads(packed)  # fails for errors whose constructor takes other arguments
    except Exception:
        packed = pickle.dumps((RuntimeError(f"{type(error).__name__}: {error}"), text))
    return packed


def _exit_at_end_of(descriptor: int) -> None:
    """End this process when the app dies, so that it does not write to a run that goes on.

    Reads the descriptor, not sys.stdin: a forked worker closes sys.stdin, and would wait forever
    for the lock that a read of it holds.
    """

    def wait() -> None:
        while os.read(descriptor, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    run_and_exit(_answer_request)
