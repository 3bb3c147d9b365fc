"""Run the launcher in this process, with stand-ins for the clients of services on PATH."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cls_launch import settings, training
from cls_launch.main import main
from cls_launch.settings import compose_launch
from cls_launch.targets.target import Job, Resources, Target
from cls_train.composition.arguments import CommandLine
from cls_train.composition.compose import Composer

REPOSITORY = Path(__file__).resolve().parents[3]
GOLDEN = Path(__file__).parent / "golden"
DIGEST = f"sha256:{'ab' * 32}"
IMAGE = f"127.0.0.1:9/team/cls-train@{DIGEST}"
"""Nothing listens on port 9, so its label is not read."""


@pytest.fixture(scope="session")
def whole_systems(request: pytest.FixtureRequest) -> None:
    """Skip a test that sets up a cluster, a cloud, or an environment, except in `-m faults`."""
    if "faults" not in request.config.getoption("markexpr"):
        pytest.skip("sets up a whole system; run pytest -m faults")


@functools.cache
def build_composer(folder: Path, config_name: str | None) -> Composer:
    return Composer(folder, CommandLine(config_name=config_name))


@pytest.fixture(autouse=True)
def shared_composers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the YAML files once, which takes most of the time of a launch."""

    def find(folder: Path, command: CommandLine) -> Composer:
        return build_composer(folder, command.config_name)

    for module in (settings, training):
        monkeypatch.setattr(module, "Composer", find)


@pytest.fixture(scope="session")
def small_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with conf/, whose state git reads faster than that of the real one."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "conf").symlink_to(REPOSITORY / "conf")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (["init"], ["add", "."], [*identity, "commit", "--message=first"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True)
    return folder


Launched = tuple[int, str, str]
RunLaunch = Callable[..., Launched]
AddCommand = Callable[[str, str], None]


@pytest.fixture
def run_launch(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    small_repository: Path,
) -> RunLaunch:
    """Run the command line in an empty folder, and return exit code, stdout, and stderr."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-login"))

    def run(*arguments: str) -> Launched:
        folder = tmp_path / "empty"
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["apps/launch", *arguments])
        capfd.readouterr()
        code = main(small_repository)
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def add_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AddCommand:
    """Add an executable to PATH that runs a bash script."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def add(name: str, body: str) -> None:
        command = folder / name
        command.write_text(f"#!/bin/bash\n{body}\n")
        command.chmod(0o755)

    return add


@pytest.fixture
def make_target() -> Callable[..., Target[Any]]:
    """Build a target from conf/launch/NAME.yaml and `target.KEY=VALUE`."""

    def make(name: str, *overrides: str) -> Target[Any]:
        _, target, _ = compose_launch([f"target={name}", *overrides], REPOSITORY / "conf")
        return target

    return make


@pytest.fixture
def make_job() -> Callable[..., Job]:
    """Build a job, with some fields changed."""

    def make(**changes: Any) -> Job:
        fields: dict[str, Any] = {
            "name": "jerseys-1",
            "image": IMAGE,
            "arguments": (
                "experiment=jersey_numbers",
                "data.root=gs://bucket/crops",
                "run.remote=gs://bucket/runs",
                'run.tags="it\'s $HOME; a"',
                "run.name=jerseys-1",
            ),
            "resources": Resources(gpus=1, gpu="L4", cpus=8, memory_gb=32, disk_gb=100),
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "environment": {"HF_HUB_OFFLINE": "1"},
            "secrets": {},
            "labels": {"app": "cls-train"},
        }
        return Job(**{**fields, **changes})

    return make
