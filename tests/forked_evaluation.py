"""Run a run's evaluation in a fork of its process, which has imported everything.

The app starts a new Python process for it, which imports PyTorch and the exporter for about six
seconds. Tests of a fresh process start `apps/train` itself.
"""

import os
import signal
import sys
from typing import IO

import torch

from cls_train.process import run_and_exit
from cls_train.stages import evaluation_process


class ForkedEvaluation:
    """The part of `subprocess.Popen` that `evaluation_process` uses."""

    def __init__(self) -> None:
        request_end, own_request_end = os.pipe()
        own_answer_end, answer_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(own_request_end)
            os.close(own_answer_end)
            _answer(request_end, answer_end)
        os.close(request_end)
        os.close(answer_end)
        self.stdin: IO[bytes] = os.fdopen(own_request_end, "wb")
        self.stdout: IO[bytes] = os.fdopen(own_answer_end, "rb")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code if the process has ended."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait for the end of the process, and return its exit code."""
        return self._wait(0)

    def kill(self) -> None:
        """Kill the process if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _wait(self, option: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, option)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _answer(request: int, answer: int) -> None:
    """Answer in a process with the streams and signal handlers of a new one."""
    os.dup2(request, 0)
    os.dup2(answer, 1)
    os.close(request)
    os.close(answer)
    sys.stdin = os.fdopen(0)
    sys.stdout = os.fdopen(1, "w")
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # PyTorch replaces its thread pool after a fork on first use, which must not be in two threads.
    torch.set_num_threads(1)
    run_and_exit(evaluation_process._answer_request)
