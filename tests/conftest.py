"""Real runs of the app, in processes of their own, as a user starts them."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

TINY = (
    "debug=tiny",
    "data=synthetic_tiny",
    "trainer.max_epochs=3",
    "monitor.metric=valid_loss",  # of 12 images, top-1 takes few values; the loss tells any two sets of weights apart
    "monitor.mode=min",
)

QUICK = ("callbacks.grad_cam=null", "stages.report=false")
"""What no fault has to do with, and takes seconds of each run."""

Command = Callable[..., list[str]]


@pytest.fixture(scope="session")
def train_command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Return the command line of a tiny run; all runs of the session share one rendered data set."""
    data = tmp_path_factory.mktemp("data") / "tiny"

    def command(root: Path, name: str, *overrides: str, whole: bool = False) -> list[str]:
        settings: Sequence[str] = [
            *TINY,
            *(() if whole else QUICK),
            f"data.root={data}",
            f"run.root={root}",
        ]
        return [
            sys.executable,
            str(REPOSITORY / "apps/train"),
            *settings,
            f"run.name={name}",
            *overrides,
        ]

    return command


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Warnings are errors in the runs, too, but for those that pyproject.toml names."""
    return {**os.environ, "PYTHONWARNINGS": "error,ignore:GPU available but not used"}


@pytest.fixture
def short(request: pytest.FixtureRequest) -> bool:
    """Whether faults are tried in their short form."""
    return "faults" not in request.config.getoption("markexpr")


@pytest.fixture(scope="session")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory, train_command: Command, environment: dict[str, str]
) -> Path:
    """The folder of a whole run: trained with EMA, evaluated, exported."""
    root = tmp_path_factory.mktemp("runs")
    subprocess.run(train_command(root, "whole", whole=True), check=True, env=environment, cwd=root)
    return root / "whole"
