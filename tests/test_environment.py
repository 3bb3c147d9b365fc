"""Runs in unusual environments: each ends in a finished run, or in one message."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import forked_app
import pytest
from tiny_network import TINY_NETWORK

from cls_train.run_folder import run_paths

pytestmark = [pytest.mark.slow, pytest.mark.faults]

SETTINGS = (*TINY_NETWORK, "trainer.max_epochs=1", "stages.evaluate=false")
MAX_SECONDS = 120

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or not Path("/proc/self/fd").is_dir(),
    reason="needs root on Linux to change the environment of a process",
)


class Result(NamedTuple):
    code: int
    output: str

    @property
    def messages(self) -> list[str]:
        lines = self.output.splitlines()
        return [line for line in lines if line.startswith("apps/train: ")]


@pytest.fixture
def run_app(tmp_path: Path, train_command: Any) -> Callable[..., Result]:
    def run(root: Path, *overrides: str, **settings: Any) -> Result:
        output = tmp_path / "output.txt"
        output.unlink(missing_ok=True)
        arguments = train_command(root, "one", *SETTINGS, *overrides)[2:]
        process = forked_app.start(arguments, output, **settings)
        process.join(MAX_SECONDS)
        assert process.exitcode is not None, "still running"
        result = Result(process.exitcode, output.read_text())
        assert "Traceback" not in result.output
        assert "this is a bug" not in result.output
        return result

    return run


def test_few_open_files_are_enough(run_app: Any, tmp_path: Path) -> None:
    result = run_app(tmp_path, prepare=forked_app.limit_open_files)
    assert result.code == 0, result.output


@needs_root
def test_a_run_without_any_network_finishes(run_app: Any, tmp_path: Path) -> None:
    result = run_app(tmp_path, "stages.evaluate=true", prepare=forked_app.remove_network)
    assert result.code == 0, result.output


@needs_root
def test_little_shared_memory_is_no_obstacle_or_one_message(run_app: Any, tmp_path: Path) -> None:
    result = run_app(tmp_path, prepare=forked_app.shrink_shared_memory)
    assert result.code == 0, result.output

    settings = ("run.name=workers", "data.num_workers=1", "data.batch_size=24")
    result = run_app(tmp_path, *settings, prepare=forked_app.shrink_shared_memory)
    if result.code != 0:
        assert result.code == 1, result.output
        assert len(result.messages) == 1, result.output
        result = run_app(tmp_path, *settings)
    assert result.code == 0, result.output


def test_a_file_system_without_locks_is_named_and_still_keeps_a_second_process_away(
    run_app: Any, tmp_path: Path, train_command: Any
) -> None:
    """C10."""
    root = tmp_path / "no-flock"
    root.mkdir()
    result = run_app(root, prepare=forked_app.remove_flock)
    assert result.code == 0, result.output
    assert result.output.count("the file system does not support locks") == 1

    command = train_command(root, "two", *SETTINGS, "trainer.max_epochs=4000")[2:]
    first = forked_app.start(command, tmp_path / "first.txt", prepare=forked_app.remove_flock)
    try:
        wait_for(root / "two/checkpoints/last.ckpt")
        result = run_app(root, "run.name=two", prepare=forked_app.remove_flock)
    finally:
        first.kill()
        first.join()
    assert result.code == 2, result.output
    assert f"'two' is being trained by process {first.pid} on " in result.messages[0]


@needs_root
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_that_cannot_be_written_is_one_message_and_the_run_goes_on_afterwards(
    run_app: Any, tmp_path: Path, mode: int
) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    root.chmod(mode)
    result = run_app(root, prepare=forked_app.drop_root_permissions)
    root.chmod(0o755)
    assert result.code in (1, 2), result.output
    assert len(result.messages) == 1, result.output
    assert str(root) in result.messages[0]
    result = run_app(root, prepare=forked_app.drop_root_permissions)
    assert result.code == 0, result.output


@pytest.mark.parametrize(("utf8", "folder"), [("0", "runs"), ("1", "läufe-走")])
def test_a_run_in_the_c_locale_finishes(
    tmp_path: Path, train_command: Any, environment: dict[str, str], utf8: str, folder: str
) -> None:
    root = tmp_path / folder
    command = train_command(tmp_path, "one", *SETTINGS, f'run.root="{root}"')
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": utf8}
    process = subprocess.run(
        command,
        env={**environment, **locale},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert (root / "one/summary.json").exists()


def test_runs_get_names_of_their_own_when_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train_command: Any
) -> None:
    from types import SimpleNamespace

    run = SimpleNamespace(name=None, root=tmp_path, remote=None)
    config: Any = SimpleNamespace(run=run, model={"name": "resnet18"}, seed=1)
    names = []
    for now in ("20261127-120000", "20251127-120000", "20261127-120000", "20261127-120000"):
        monkeypatch.setattr(run_paths.time, "strftime", lambda _, now=now: now)
        folder = run_paths.choose_run_paths(config).path
        folder.mkdir()
        names.append(folder.name)
    assert len(set(names)) == 4


def wait_for(path: Path) -> None:
    import time

    end = time.monotonic() + MAX_SECONDS
    while not path.exists():
        assert time.monotonic() < end, f"{path} was not written"
        time.sleep(0.05)
