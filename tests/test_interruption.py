"""A run that dies and goes on cannot be told from one that did not."""

import csv
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.faults]

EPOCHS = 12
SETTINGS = (f"trainer.max_epochs={EPOCHS}", "stages.evaluate=false", "+model.dropout=0.2")
"""With dropout, so that the network draws in every step."""


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
        return [{**row, "images_per_second": ""} for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, train_command: Any, environment: dict[str, str]) -> Path:
    root = tmp_path_factory.mktemp("uninterrupted")
    command = train_command(root, "whole", *SETTINGS)
    subprocess.run(command, env=environment, cwd=root, check=True)
    return root / "whole"


@pytest.mark.parametrize(("epochs", "delay"), [(1, 0.0), (4, 0.05), (7, 0.15)])
def test_resume_after_kill_gives_the_same_weights_and_metrics(
    uninterrupted: Path, tmp_path: Path, train_command: Any, environment: dict[str, str], epochs: int, delay: float
) -> None:
    command = train_command(tmp_path, "killed", *SETTINGS)
    run = tmp_path / "killed"
    process = start(command, environment, tmp_path)
    while epochs_logged(run) < epochs or not (run / "checkpoints/last.ckpt").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    time.sleep(delay)
    process.kill()
    process.wait()
    assert epochs_logged(run) < EPOCHS
    assert not (run / "summary.json").exists()

    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    assert "goes on from" in (run / "train.log").read_text()
    for name in ("last", "best"):
        one, other = (
            torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True) for folder in (uninterrupted, run)
        )
        assert one["scored"] == other["scored"]
        for key in ("state_dict", "raw_state_dict"):
            assert all(torch.equal(one[key][weight], other[key][weight]) for weight in one[key]), (name, key)
    assert logged(run) == logged(uninterrupted)
