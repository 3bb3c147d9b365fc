"""The process that waits for a run while the app trains it."""

import subprocess
import sys

import pytest

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
