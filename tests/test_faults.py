"""Faults at random moments: a run reports each of them, and resumes exactly.

`-m faults` runs the full number of repetitions in each test name; the default suite runs fewer.
"""

import csv
import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from forked_app import start
from tiny_network import LARGE_CHECKPOINTS

from cls_callbacks import verify_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.faults]

EPOCHS = 6
SETTINGS = (
    f"trainer.max_epochs={EPOCHS}",
    "stages.evaluate=false",
    "data.batch_size=4",
    "model.dropout=0.2",
    "callbacks.best_and_last.every_n_steps=2",
)
"""Six steps per epoch, frequent checkpoints, and random numbers for dropout."""

MAX_SECONDS = 30.0
"""Time until a fault must be reported."""


@pytest.fixture(scope="module")
def network(short: bool) -> tuple[str, ...]:
    """Settings of the network, with `-m faults` of a ResNet-18.

    Its checkpoints take long enough to write to be interrupted.
    """
    return LARGE_CHECKPOINTS if short else ()


class Runs(NamedTuple):
    """Named runs of one test, all with the same settings."""

    folder: Path
    command: Callable[..., list[str]]
    network: tuple[str, ...]

    def start(self, name: str, *more: str, **settings: Any) -> Any:
        arguments = self.command(self.folder, name, *self.network, *SETTINGS, *more)[2:]
        return start(arguments, self.folder / f"{name}.out", **settings)

    def finish(self, name: str, *more: str) -> None:
        process = self.start(name, *more)
        process.join(120)
        assert process.exitcode == 0, self.read_output(name)

    def read_output(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text()

    def count_in_log(self, name: str, text: str) -> int:
        log = self.folder / name / "train.log"
        return log.read_text().count(text) if log.exists() else 0

    def start_and_wait(self, name: str, *more: str, text: str = "EMA decay") -> Any:
        """Start, and wait for a text in the log; the default is logged before the first step."""
        before = self.count_in_log(name, text)
        process = self.start(name, *more)
        wait_until(lambda: self.count_in_log(name, text) > before or not process.is_alive(), 60)
        return process


@pytest.fixture
def runs(tmp_path: Path, train_command: Any, network: tuple[str, ...]) -> Runs:
    return Runs(tmp_path, train_command, network)


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, train_command: Any, network: tuple[str, ...]
) -> Path:
    runs = Runs(tmp_path_factory.mktemp("uninterrupted"), train_command, network)
    runs.finish("whole")
    return runs.folder / "whole"


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no result after {seconds} s"
        time.sleep(0.005)


def is_finished(run: Path) -> bool:
    return (run / "summary.json").exists()


def read_metrics(run: Path) -> list[dict[str, str]]:
    """Return every row of metrics.csv without the columns that depend on time."""
    with (run / "metrics.csv").open(newline="") as stream:
        return [{**row, "images_per_second": "", "data_wait": ""} for row in csv.DictReader(stream)]


def load_checkpoint(run: Path, name: str) -> dict[str, Any]:
    path = run / f"checkpoints/{name}.ckpt"
    verify_checkpoint(path)
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def assert_same(run: Path, uninterrupted: Path) -> None:
    for name in ("last", "best"):
        one, other = load_checkpoint(uninterrupted, name), load_checkpoint(run, name)
        assert one["scored"] == other["scored"]
        for key in ("state_dict", "raw_state_dict"):
            assert all(torch.equal(one[key][weight], other[key][weight]) for weight in one[key]), (
                name,
                key,
            )
    assert read_metrics(run) == read_metrics(uninterrupted)


def is_being_written(run: Path) -> bool:
    return any((run / "checkpoints").glob(".*.ckpt.*"))


def run_two_chains(chain: Callable[[int], Any]) -> list[Any]:
    """Run two chains of faults at once, because each run has one thread."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(chain, (0, 1)))


@pytest.mark.parametrize("asynchronous", ["false", "true"])
def test_resume_after_thirty_kills_gives_the_same_weights_and_metrics(
    runs: Runs, uninterrupted: Path, short: bool, asynchronous: str
) -> None:
    num_faults = 1 if short else 15
    setting = f"callbacks.best_and_last.asynchronous={asynchronous}"

    def chain(which: int) -> tuple[int, int]:
        moments = random.Random(which)
        kills, while_writing, number = 0, 0, 0
        while kills < num_faults:
            name = f"killed{which}.{number}"
            while kills < num_faults and not is_finished(runs.folder / name):
                process = runs.start_and_wait(name, setting)
                time.sleep(moments.uniform(0, 0.5 if short else 2.5))
                process.kill()
                process.join()
                kills += process.exitcode == -signal.SIGKILL
                while_writing += is_being_written(runs.folder / name)
            if not is_finished(runs.folder / name):
                runs.finish(name, setting)
            assert_same(runs.folder / name, uninterrupted)
            number += 1
        return kills, while_writing

    kills, while_writing = (sum(counts) for counts in zip(*run_two_chains(chain), strict=True))
    assert short or while_writing > 0, "no kill happened while a checkpoint was being written"
    print(f"{kills} kills, {while_writing} of them while a checkpoint was being written")


def test_signals_at_twenty_random_moments_lose_no_step(
    runs: Runs, uninterrupted: Path, short: bool
) -> None:
    num_faults = 1 if short else 10

    def chain(which: int) -> None:
        name, code = (("SIGTERM", 143), ("SIGINT", 130))[which]
        moments = random.Random(which)
        sent, number = 0, 0
        while sent < num_faults:
            run = runs.folder / f"{name}{number}"
            while sent < num_faults and not is_finished(run):
                process = runs.start_and_wait(run.name)
                time.sleep(moments.uniform(0.1, 0.5 if short else 1.0))
                os.kill(process.pid, getattr(signal, name))
                process.join(10)
                if process.exitcode == 0:  # the signal came after the last step
                    break
                assert process.exitcode == code, runs.read_output(run.name)
                sent += 1
                stopped_at = int(
                    (run / "train.log")
                    .read_text()
                    .rsplit(f"{name}: stopped at step ", 1)[1]
                    .split()[0]
                )
                assert load_checkpoint(run, "last")["global_step"] == stopped_at
            if not is_finished(run):
                runs.finish(run.name)
            assert_same(run, uninterrupted)
            number += 1

    run_two_chains(chain)


def test_ctrl_c_before_the_first_step_exits_with_130(runs: Runs) -> None:
    process = runs.start_and_wait("early", text=": starting")
    os.kill(process.pid, signal.SIGINT)
    process.join(10)
    assert process.exitcode == 130, runs.read_output("early")
    assert "Traceback" not in runs.read_output("early")


def test_ten_signals_to_the_process_group_save_with_loader_workers(
    runs: Runs, uninterrupted: Path, short: bool
) -> None:
    workers = ("data.num_workers=1",)
    num_signals = 1 if short else 10
    moments = random.Random(2)
    for i in range(num_signals):
        name = f"group-{i}"
        process = runs.start_and_wait(name, *workers)
        wait_for_worker(process.pid)
        time.sleep(moments.uniform(0, 0.4))
        os.killpg(process.pid, signal.SIGTERM)
        process.join(MAX_SECONDS)
        assert process.exitcode == 143, runs.read_output(name)
    runs.finish("group-0", *workers)
    assert_same(runs.folder / "group-0", uninterrupted)


def wait_for_worker(process: int) -> None:
    wait_until(lambda: len(children(process)) == 1, 30)


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def test_a_killed_loader_worker_is_reported_and_the_run_resumes(
    runs: Runs, uninterrupted: Path
) -> None:
    workers = ("data.num_workers=1",)
    process = runs.start_and_wait("worker", *workers)
    wait_until((runs.folder / "worker/checkpoints/last.ckpt").exists, 30)
    wait_for_worker(process.pid)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    process.join(MAX_SECONDS)
    assert process.exitcode == 1, runs.read_output("worker")
    assert "data loader worker process died" in runs.read_output("worker")
    assert "Traceback" not in runs.read_output("worker")
    runs.finish("worker", *workers)
    assert_same(runs.folder / "worker", uninterrupted)


def test_a_full_disk_stops_the_run_with_a_message_and_keeps_the_checkpoint(
    runs: Runs, uninterrupted: Path
) -> None:
    process = runs.start_and_wait("full")
    wait_until((runs.folder / "full/checkpoints/last.ckpt").exists, 30)
    os.kill(process.pid, signal.SIGTERM)
    process.join(10)
    before = (runs.folder / "full/checkpoints/last.ckpt").read_bytes()
    process = runs.start("full", max_file_bytes=len(before) // 2)
    process.join(MAX_SECONDS + 30)
    output = " ".join(runs.read_output("full").split())
    assert process.exitcode == 1, output
    assert "was not saved: " in output
    assert "to resume from" in output
    assert "Traceback" not in output
    assert (runs.folder / "full/checkpoints/last.ckpt").read_bytes() == before
    assert not is_finished(runs.folder / "full")
    runs.finish("full")
    assert_same(runs.folder / "full", uninterrupted)


def test_on_save_error_continue_trains_to_the_end_but_is_not_finished(
    runs: Runs,
) -> None:
    process = runs.start(
        "on", "callbacks.best_and_last.on_save_error=continue", max_file_bytes=1_000_000
    )
    process.join(120)
    output = runs.read_output("on")
    assert process.exitcode == 1, output
    assert output.count("Training continues.") > EPOCHS
    assert f"epoch {EPOCHS}/{EPOCHS}" in output
    assert not is_finished(runs.folder / "on")


def test_a_deleted_run_folder_stops_the_run_with_a_message(runs: Runs) -> None:
    process = runs.start_and_wait("gone")
    wait_until((runs.folder / "gone/checkpoints/last.ckpt").exists, 30)
    (runs.folder / "gone").rename(runs.folder / "elsewhere")
    process.join(MAX_SECONDS)
    assert process.exitcode == 1, runs.read_output("gone")
    assert "Traceback" not in runs.read_output("gone")
    assert str(runs.folder / "gone") in runs.read_output("gone")
    load_checkpoint(runs.folder / "elsewhere", "last")


@pytest.mark.parametrize("root", ["/proc/runs", "FILE/runs"])
def test_an_unwritable_run_root_is_reported_before_the_first_step(runs: Runs, root: str) -> None:
    (runs.folder / "file").touch()
    process = runs.start("nowhere", f"run.root={root.replace('FILE', str(runs.folder / 'file'))}")
    process.join(60)
    assert process.exitcode == 2, runs.read_output("nowhere")
    assert "cannot be created" in runs.read_output("nowhere")
    assert "epoch 1/" not in runs.read_output("nowhere")
