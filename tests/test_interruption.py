"""Stop a run with signals, as a user starts it, with warnings as errors.

It must end with the same weights and metrics as an uninterrupted run. test_faults.py tests more
moments, in processes that start faster.
"""

import csv
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_app import finish, make_warnings_errors
from tiny_network import TINY_NETWORK

pytestmark = pytest.mark.slow

EPOCHS = 12
SETTINGS = (
    *TINY_NETWORK,
    f"trainer.max_epochs={EPOCHS}",
    "stages.evaluate=false",
    "data.batch_size=4",
    "model.dropout=0.2",
)
"""Six steps per epoch; the network draws random numbers for its dropout."""

WITH_WORKER = ("data.num_workers=1", "callbacks.best_and_last.every_n_steps=4")


def count_logged_epochs(run: Path) -> int:
    try:
        with (run / "metrics.csv").open(newline="") as stream:
            return sum(1 for row in csv.DictReader(stream) if row.get("valid_loss"))
    except FileNotFoundError:
        return 0


def read_metrics(run: Path) -> list[dict[str, str]]:
    """Return every row of metrics.csv without the columns that depend on time."""
    with (run / "metrics.csv").open(newline="") as stream:
        return [{**row, "images_per_second": "", "data_wait": ""} for row in csv.DictReader(stream)]


def start_and_signal(
    command: list[str], environment: dict[str, str], run: Path, *, epochs: int, numbers: list[int]
) -> int:
    """Start a run, send it signals after some epochs, and return its exit code."""
    process = subprocess.Popen(command, env=environment, cwd=run.parent, stdout=subprocess.DEVNULL)
    while count_logged_epochs(run) < epochs or not (run / "checkpoints/last.ckpt").exists():
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.01)
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.01)
    return process.wait(timeout=30)


def assert_same_checkpoints(run: Path, uninterrupted: Path) -> None:
    for name in ("last", "best"):
        expected, actual = (
            torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
            for folder in (uninterrupted, run)
        )
        assert expected["scored"] == actual["scored"]
        for key in ("state_dict", "raw_state_dict"):
            for weight, value in expected[key].items():
                assert torch.equal(value, actual[key][weight]), (name, key, weight)


def test_a_run_that_is_signaled_and_killed_ends_like_an_uninterrupted_one(
    tmp_path: Path, train_command: Any, environment: dict[str, str]
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole_command = train_command(tmp_path, "whole", *SETTINGS)
    finish(whole_command[2:], tmp_path / "whole.txt", prepare=make_warnings_errors)
    command = train_command(tmp_path, "stopped", *SETTINGS, *WITH_WORKER)

    # `uv run` forwards a signal that the whole process group has received already.
    twice = [signal.SIGUSR1, signal.SIGUSR1]
    assert start_and_signal(command, environment, stopped, epochs=2, numbers=twice) == 143
    assert "SIGUSR1: stopped at step " in (stopped / "train.log").read_text()
    start_and_signal(command, environment, stopped, epochs=7, numbers=[signal.SIGKILL])
    assert count_logged_epochs(stopped) < EPOCHS
    assert not (stopped / "summary.json").exists()

    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    assert (stopped / "train.log").read_text().count("resuming from") == 2
    assert_same_checkpoints(stopped, whole)
    assert read_metrics(stopped) == read_metrics(whole)
