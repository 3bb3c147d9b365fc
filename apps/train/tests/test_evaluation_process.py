"""The process that waits for a run while the app trains it."""

import subprocess
import sys
from pathlib import Path

import pytest

from cls_export.contract.run_layout import RunPaths
from cls_train.errors import RunError, RunFailedError
from cls_train.stages import evaluation_process


@pytest.mark.slow
def test_the_process_ends_silently_when_the_app_ends_without_a_request() -> None:
    process = subprocess.run(
        [sys.executable, "-P", "-m", "cls_train.stages.evaluation_process"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, b"", b"")


def test_stop_ends_a_waiting_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_process, "_waiting", None)
    evaluation_process.start_early(["debug=tiny"])
    process = evaluation_process._waiting
    assert process is not None
    evaluation_process.stop()
    assert process.poll() is not None


def test_no_process_starts_when_evaluation_is_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_process, "_waiting", None)
    evaluation_process.start_early(["debug=tiny", "stages.evaluate=false"])
    assert evaluation_process._waiting is None


@pytest.mark.slow
def test_an_error_of_the_process_is_raised_in_the_app(tmp_path: Path) -> None:
    """Item 3: one message, printed by the app."""
    with pytest.raises(RunError, match=r"no config\.yaml") as caught:
        evaluation_process.evaluate_in_clean_process(RunPaths(tmp_path / "none"), ())
    assert "in read_config" in str(caught.value.__cause__), "the traceback of the process"


DIES = "import os, sys; sys.stdin.readline(); os.kill(os.getpid(), {number})"


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (9, r"by signal 9 \(Killed\), often because the machine is out of memory"),
        (11, r"by signal 11 \(Segmentation fault\)"),
    ],
)
def test_a_process_that_is_killed_is_one_message_with_the_next_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, cause: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", DIES.format(number=number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    monkeypatch.setattr(evaluation_process, "_waiting", process)
    expected = rf"was ended {cause}\. Repeat the command with run.name=one to evaluate again"
    with pytest.raises(RunFailedError, match=expected):
        evaluation_process.evaluate_in_clean_process(RunPaths(tmp_path / "one"), ())
