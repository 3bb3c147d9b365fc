"""Runs of the app in their own processes, as a user starts them."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parents[1]

TINY = (
    "debug=tiny",
    "data=synthetic_tiny",
    "trainer.max_epochs=3",
    "monitor.metric=valid_loss",  # distinguishes any two sets of weights, unlike top-1 of 12 images
    "monitor.mode=min",
)

QUICK = (
    "callbacks.augmented_samples=null",
    "callbacks.confusion_matrix=null",
    "callbacks.grad_cam=null",
    "callbacks.sample_predictions=null",
    "stages.report=false",
)
"""Skip slow steps that faults do not affect."""

Command = Callable[..., list[str]]


@pytest.fixture(scope="session")
def train_command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Return the command line of a tiny run; the runs of a worker share one rendered data set."""
    data = tmp_path_factory.mktemp("data") / "tiny"

    def command(root: Path, name: str, *overrides: str, quick: bool = True) -> list[str]:
        settings: Sequence[str] = [
            *TINY,
            *(QUICK if quick else ()),
            f"data.root={data}",
            f"run.root={root}",
            f"run.name={name}",
            *overrides,
        ]
        return [sys.executable, str(REPOSITORY / "apps/train"), *settings]

    return command


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Make warnings errors in the runs too, except the one that pyproject.toml ignores.

    The runs find the tiny network.
    """
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        "PYTHONWARNINGS": "error,ignore:GPU available but not used",
    }


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of pytest-xdist share in this session."""
    folder = tmp_path_factory.getbasetemp()
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    return folder.parent if is_worker else folder


@pytest.fixture(scope="session")
def finished_run(shared_folder: Path, train_command: Command, environment: dict[str, str]) -> Path:
    """A complete run, trained with EMA, evaluated, and exported; the first worker trains it."""
    root = shared_folder / "finished"
    run = root / "whole"
    with FileLock(shared_folder / "finished.lock"):
        root.mkdir(exist_ok=True)
        if not (run / "report.html").exists():
            command = train_command(root, "whole", quick=False)
            subprocess.run(command, check=True, env=environment, cwd=root)
    return run
