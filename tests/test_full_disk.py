"""C5: a disk of 8 kB to 40 MB. A run says what is full; with more space, the same command goes on.

These tests mount small file systems, so they need root on Linux.
"""

import itertools
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked_app import start
from tiny_network import LARGE_CHECKPOINTS

from cls_export.contract.run_layout import RunPaths
from cls_report import Run

pytestmark = [pytest.mark.slow, pytest.mark.faults]

SEED = 20261127
SETTINGS = (*LARGE_CHECKPOINTS, "trainer.max_epochs=2")
MAX_SECONDS = 120

Mount = Callable[[int], Path]
"""Give the disk this many kB, keep its files, and return its folder."""


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    folder = tmp_path / "disk"
    folder.mkdir()
    is_mounted = False

    def resize(kilobytes: int) -> Path:
        nonlocal is_mounted
        options = f"size={kilobytes}k,mode=777"
        if is_mounted:
            options += ",remount"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            pytest.skip(f"needs root to mount a small file system: {mounted.stderr.strip()}")
        is_mounted = True
        return folder

    yield resize
    if is_mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def run_app(tmp_path: Path, train_command: Any) -> Callable[..., tuple[int, str]]:
    """Run the app, and return its exit code and output."""

    def run(root: Path, *overrides: str, **settings: Any) -> tuple[int, str]:
        output = tmp_path / "output.txt"
        output.unlink(missing_ok=True)
        quick = settings.pop("quick", True)
        arguments = train_command(root, "one", *SETTINGS, *overrides, quick=quick)[2:]
        process = start(arguments, output, **settings)
        process.join(MAX_SECONDS)
        assert process.exitcode is not None, "still running"
        return process.exitcode, output.read_text()

    return run


def assert_one_message(code: int, output: str, path: Path) -> None:
    """Check that the command failed with exit code 1 and one message with the path."""
    lines = output.splitlines()
    messages = [line for line in lines if line.startswith("apps/train: ")]
    assert len(messages) == 1, output
    assert code == 1, output
    assert str(path) in messages[0]
    assert "Traceback" not in output
    assert "this is a bug" not in output


def choose_sizes(which: int, short: bool) -> list[int]:
    """Return increasing disk sizes in kB, evenly spread over the orders of magnitude."""
    draws = random.Random(SEED + which)
    ends = [8, 64, 512, 4_000, 10_000, 16_000, 40_000]
    if short:
        ends = [8, 4_000, 40_000]
    sizes = [8]
    for low, high in itertools.pairwise(ends):
        sizes.append(draws.randint(low, high))
    return sizes


def test_a_run_on_a_disk_that_grows_says_what_is_full_until_it_fits(
    mount: Mount, run_app: Any, short: bool
) -> None:
    sizes = choose_sizes(0, short)
    failures = 0
    for kilobytes in [*sizes, 400_000]:
        disk = mount(kilobytes)
        code, output = run_app(disk / "runs", quick=False)
        if code == 0:
            break
        failures += 1
        assert_one_message(code, output, disk)
        assert not RunPaths(disk / "runs/one").summary.exists()
    assert code == 0, output
    assert failures >= 2
    run = RunPaths(disk / "runs/one")
    assert run.report.exists()
    assert not list(run.path.rglob(".*")), "drafts are removed"
    print(f"seed {SEED}: {failures} full disks of {sizes} kB")


@pytest.mark.parametrize("kilobytes", [8, 100])
def test_a_full_disk_of_the_store_is_one_message(
    mount: Mount, run_app: Any, tmp_path: Path, kilobytes: int
) -> None:
    store = f"data.store={mount(kilobytes)}"
    code, output = run_app(tmp_path / "runs", store, "stages.evaluate=false")
    assert_one_message(code, output, tmp_path / "disk")
    mount(10_000)
    code, output = run_app(tmp_path / "runs", store, "stages.evaluate=false")
    assert code == 0, output


@pytest.mark.parametrize("kilobytes", [8, 200])
def test_a_full_temporary_folder_is_no_obstacle_or_one_message(
    mount: Mount, run_app: Any, tmp_path: Path, kilobytes: int
) -> None:
    temporary = mount(kilobytes)
    (temporary / "filler").write_bytes(bytes(kilobytes * 1024 - 4096))
    environment = {"TMPDIR": str(temporary)}
    code, output = run_app(tmp_path / "runs", environment=environment)
    if code != 0:
        assert_one_message(code, output, temporary)
        mount(100_000)
        code, output = run_app(tmp_path / "runs", environment=environment)
    assert code == 0, output


def test_a_report_that_does_not_fit_leaves_an_evaluated_run_that_goes_on(
    mount: Mount, run_app: Any
) -> None:
    """C2: the summary makes a run a finished one, so it comes after the report."""
    disk = mount(400_000)
    code, output = run_app(disk / "runs", "stages.report=false")
    assert code == 0, output
    run = RunPaths(disk / "runs/one")
    run.summary.unlink()
    mount(shutil.disk_usage(disk).used // 1024 + 60)

    code, output = run_app(disk / "runs", "stages.report=true")
    assert_one_message(code, output, disk)
    assert not run.summary.exists()
    mount(400_000)
    trained_at = run.last.stat().st_mtime_ns
    code, output = run_app(disk / "runs", "stages.report=true")
    assert code == 0, output
    assert run.report.exists()
    assert run.last.stat().st_mtime_ns == trained_at, "it is not trained again"
    assert Run.open(run.path).predictions
