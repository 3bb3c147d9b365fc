"""The process that waits for a run while the app trains it."""

import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from cls_export.contract.run_layout import RunPaths
from cls_train.errors import RunError, RunFailedError
from cls_train.stages import evaluation_process
from cls_train.stages.evaluation_starter import EvaluationStarter


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
    evaluation_process.start()
    process = evaluation_process._waiting
    assert process is not None
    evaluation_process.start()
    assert evaluation_process._waiting is process, "one process waits"
    evaluation_process.stop()
    assert process.poll() is not None


@pytest.mark.parametrize(("epochs", "expected"), [(1, True), (10, True), (11, False), (48, False)])
def test_the_process_of_a_short_run_starts_with_the_app(epochs: int, expected: bool) -> None:
    assert evaluation_process.is_short({"max_epochs": epochs}) == expected


@pytest.mark.slow
def test_an_error_of_the_process_is_raised_in_the_app(tmp_path: Path) -> None:
    """Item 3: one message, printed by the app."""
    with pytest.raises(RunError, match=r"no config\.yaml") as caught:
        evaluation_process.evaluate_in_clean_process(RunPaths(tmp_path / "none"), ())
    assert "in read_config" in str(caught.value.__cause__), "the traceback of the process"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1.0, [1, 2, 3]), (60.0, [3]), (10.0, [2, 3]), (10.5, [3])]
)
def test_the_process_of_a_gpu_run_starts_shortly_before_training_ends(
    tmp_path: Path, seconds: float, expected: list[int]
) -> None:
    starts: list[int] = []
    trainer: Trainer
    starter = EvaluationStarter(
        lambda: starts.append(trainer.current_epoch), lambda: trainer.current_epoch * seconds
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=4,
        limit_train_batches=1,
        limit_val_batches=0,
        callbacks=[starter],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(BoringModel())
    assert starts == expected


def test_scipy_signal_is_whole_after_torchmetrics_was_imported_without_it() -> None:
    code = (
        "import sys; from cls_train.process import import_torchmetrics; import_torchmetrics(); "
        "assert 'torchmetrics' in sys.modules; assert 'scipy.signal' not in sys.modules; "
        "import scipy.signal; scipy.signal.windows.hamming(3)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
