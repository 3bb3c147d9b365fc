"""A run that dies and goes on cannot be told from one that did not: started as a user starts it, warnings errors.

At more moments, in processes that start faster: test_faults.py.
"""

import csv
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

EPOCHS = 12
SETTINGS = (
    f"trainer.max_epochs={EPOCHS}",
    "stages.evaluate=false",
    "data.batch_size=4",
    "+model.dropout=0.2",
)
"""Six steps an epoch; with dropout, so that the network draws in each."""


def start(command: list[str], environment: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)


def epochs_logged(run: Path) -> int:
    try:
        with (run / "metrics.csv").open(newline="") as stream:
            return sum(1 for row in csv.DictReader(stream) if row.get("valid_loss"))
    except FileNotFoundError:
        return 0


def logged(run: Path) -> list[dict[str, str]]:
    """Every row, but for what the clock says."""
    with (run / "metrics.csv").open(newline="") as stream:
        return [{**row, "images_per_second": "", "data_wait": ""} for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, train_command: Any, environment: dict[str, str]
) -> Path:
    root = tmp_path_factory.mktemp("uninterrupted")
    command = train_command(root, "whole", *SETTINGS)
    subprocess.run(command, env=environment, cwd=root, check=True)
    return root / "whole"


def stopped(
    command: list[str],
    environment: dict[str, str],
    run: Path,
    *,
    epochs: int,
    delay: float,
    numbers: list[int],
) -> int:
    """Start a run, send it signals once it has logged some epochs, and return its exit code."""
    process = start(command, environment, run.parent)
    while epochs_logged(run) < epochs or not (run / "checkpoints/last.ckpt").exists():
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.01)
    time.sleep(delay)
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.01)
    return process.wait(timeout=10)


def assert_goes_on_exactly(
    command: list[str], environment: dict[str, str], run: Path, uninterrupted: Path
) -> None:
    assert epochs_logged(run) < EPOCHS
    assert not (run / "summary.json").exists()
    subprocess.run(command, env=environment, cwd=run.parent, check=True)
    assert "goes on from" in (run / "train.log").read_text()
    for name in ("last", "best"):
        one, other = (
            torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
            for folder in (uninterrupted, run)
        )
        assert one["scored"] == other["scored"]
        for key in ("state_dict", "raw_state_dict"):
            assert all(torch.equal(one[key][weight], other[key][weight]) for weight in one[key]), (
                name,
                key,
            )
    assert logged(run) == logged(uninterrupted)


@pytest.mark.parametrize(
    ("epochs", "delay", "more"),
    [
        (7, 1.0, ["+callbacks.best_and_last.every_n_steps=4", "+data.num_workers=1"]),
    ],
    ids=["with a worker"],
)
def test_resume_after_kill_gives_the_same_weights_and_metrics(
    uninterrupted: Path,
    tmp_path: Path,
    train_command: Any,
    environment: dict[str, str],
    epochs: int,
    delay: float,
    more: list[str],
) -> None:
    command = train_command(tmp_path, "killed", *SETTINGS, *more)
    stopped(
        command,
        environment,
        tmp_path / "killed",
        epochs=epochs,
        delay=delay,
        numbers=[signal.SIGKILL],
    )
    assert_goes_on_exactly(command, environment, tmp_path / "killed", uninterrupted)


@pytest.mark.parametrize(("name", "code", "delay"), [("SIGUSR1", 143, 0.1)])
def test_a_signal_saves_leaves_with_its_exit_code_and_the_run_goes_on_exactly(
    uninterrupted: Path,
    tmp_path: Path,
    train_command: Any,
    environment: dict[str, str],
    name: str,
    code: int,
    delay: float,
) -> None:
    command, run = train_command(tmp_path, "left", *SETTINGS), tmp_path / "left"
    sent = [getattr(signal, name)] * 2  # `uv run` passes on what the whole group got
    assert stopped(command, environment, run, epochs=2, delay=delay, numbers=sent) == code
    assert f"{name}: left at step " in (run / "train.log").read_text()
    assert_goes_on_exactly(command, environment, run, uninterrupted)
