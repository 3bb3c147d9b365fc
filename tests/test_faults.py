"""Faults at random moments: whatever happens to a run, it says so, and goes on as if nothing had happened.

`pytest -m faults` tries each as often as its test's name says; the ordinary suite has a short form.
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

from cls_callbacks import verify_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.faults]

EPOCHS = 6
SETTINGS = (
    f"trainer.max_epochs={EPOCHS}",
    "stages.evaluate=false",
    "data.batch_size=4",
    "+model.dropout=0.2",
    "+callbacks.best_and_last.every_n_steps=2",
)
"""Six steps an epoch, and something being saved at most moments; with dropout, so that the network draws in each."""

WITHIN = 30.0
"""Seconds until a fault has to be said."""


class Runs(NamedTuple):
    """Runs of one test: each by name, all with the same settings."""

    folder: Path
    command: Callable[..., list[str]]

    def start(self, name: str, *more: str, **settings: Any) -> Any:
        arguments = self.command(self.folder, name, *SETTINGS, *more)[2:]
        return start(arguments, self.folder / f"{name}.out", **settings)

    def finish(self, name: str, *more: str) -> None:
        process = self.start(name, *more)
        process.join(120)
        assert process.exitcode == 0, self.said(name)

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text()

    def lines(self, name: str, word: str) -> int:
        log = self.folder / name / "train.log"
        return log.read_text().count(word) if log.exists() else 0

    def started(self, name: str, *more: str, word: str = "EMA decay") -> Any:
        """Start, and wait for one more line with a word in the log; that about EMA comes before the first step."""
        before = self.lines(name, word)
        process = self.start(name, *more)
        wait_until(lambda: self.lines(name, word) > before or not process.is_alive(), 60)
        return process


@pytest.fixture
def runs(tmp_path: Path, train_command: Any) -> Runs:
    return Runs(tmp_path, train_command)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, train_command: Any) -> Path:
    runs = Runs(tmp_path_factory.mktemp("uninterrupted"), train_command)
    runs.finish("whole")
    return runs.folder / "whole"


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.005)


def is_finished(run: Path) -> bool:
    return (run / "summary.json").exists()


def logged(run: Path) -> list[dict[str, str]]:
    """Every row, but for what the clock says."""
    with (run / "metrics.csv").open(newline="") as stream:
        return [{**row, "images_per_second": "", "data_wait": ""} for row in csv.DictReader(stream)]


def saved(run: Path, name: str) -> dict[str, Any]:
    path = run / f"checkpoints/{name}.ckpt"
    verify_checkpoint(path)
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def assert_same(run: Path, uninterrupted: Path) -> None:
    for name in ("last", "best"):
        one, other = saved(uninterrupted, name), saved(run, name)
        assert one["scored"] == other["scored"]
        for key in ("state_dict", "raw_state_dict"):
            assert all(torch.equal(one[key][weight], other[key][weight]) for weight in one[key]), (
                name,
                key,
            )
    assert logged(run) == logged(uninterrupted)


def is_being_written(run: Path) -> bool:
    return any((run / "checkpoints").glob(".*.ckpt.*"))


def side_by_side(chain: Callable[[int], Any]) -> list[Any]:
    """Run two chains of faults at once, since each run has one thread, and a machine mostly two cores."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(chain, (0, 1)))


def test_resume_after_thirty_kills_gives_the_same_weights_and_metrics(
    runs: Runs, uninterrupted: Path, short: bool
) -> None:
    wanted = 2 if short else 15

    def chain(which: int) -> tuple[int, int]:
        moments = random.Random(which)
        kills, while_writing, number = 0, 0, 0
        while kills < wanted:
            name = f"killed{which}.{number}"
            while kills < wanted and not is_finished(runs.folder / name):
                process = runs.started(name)
                time.sleep(moments.uniform(0, 2.5))
                process.kill()
                process.join()
                kills += process.exitcode == -signal.SIGKILL
                while_writing += is_being_written(runs.folder / name)
            if not is_finished(runs.folder / name):
                runs.finish(name)
            assert_same(runs.folder / name, uninterrupted)
            number += 1
        return kills, while_writing

    kills, while_writing = (sum(counts) for counts in zip(*side_by_side(chain), strict=True))
    assert short or while_writing > 0, "no kill fell into the writing of a checkpoint"
    print(f"{kills} kills, {while_writing} of them while a checkpoint was being written")


def test_signals_at_twenty_random_moments_lose_no_step(
    runs: Runs, uninterrupted: Path, short: bool
) -> None:
    wanted = 1 if short else 10

    def chain(which: int) -> None:
        name, code = (("SIGTERM", 143), ("SIGINT", 130))[which]
        moments = random.Random(which)
        sent, number = 0, 0
        while sent < wanted:
            run = runs.folder / f"{name}{number}"
            while sent < wanted and not is_finished(run):
                process = runs.started(run.name)
                time.sleep(moments.uniform(0.1, 1.0))
                os.kill(process.pid, getattr(signal, name))
                process.join(10)
                if process.exitcode == 0:  # the signal came behind the last step
                    break
                assert process.exitcode == code, runs.said(run.name)
                sent += 1
                left_at = int(
                    (run / "train.log")
                    .read_text()
                    .rsplit(f"{name}: left at step ", 1)[1]
                    .split()[0]
                )
                assert saved(run, "last")["global_step"] == left_at
            if not is_finished(run):
                runs.finish(run.name)
            assert_same(run, uninterrupted)
            number += 1

    side_by_side(chain)


def test_ctrl_c_before_the_first_step_has_its_exit_code_too(runs: Runs) -> None:
    process = runs.started("early", word=": starts")
    os.kill(process.pid, signal.SIGINT)
    process.join(10)
    assert process.exitcode == 130, runs.said("early")
    assert "Traceback" not in runs.said("early")


def test_a_signal_to_the_whole_group_saves_with_loader_workers_too(
    runs: Runs, uninterrupted: Path
) -> None:
    workers = ("+data.num_workers=1",)
    process = runs.started("group", *workers)
    wait_until(lambda: len(children(process.pid)) == 1, 30)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGTERM)
    process.join(10)
    assert process.exitcode == 143, runs.said("group")
    runs.finish("group", *workers)
    assert_same(runs.folder / "group", uninterrupted)


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def test_a_killed_loader_worker_is_named_and_the_run_goes_on_from_its_checkpoint(
    runs: Runs, uninterrupted: Path
) -> None:
    workers = ("+data.num_workers=1",)
    process = runs.started("worker", *workers)
    wait_until((runs.folder / "worker/checkpoints/last.ckpt").exists, 30)
    wait_until(lambda: len(children(process.pid)) == 1, 30)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    process.join(WITHIN)
    assert process.exitcode == 2, runs.said("worker")
    assert "data loader worker process died" in runs.said("worker")
    assert "Traceback" not in runs.said("worker")
    runs.finish("worker", *workers)
    assert_same(runs.folder / "worker", uninterrupted)


def test_a_disk_that_fills_ends_the_run_with_a_message_and_keeps_the_checkpoint(
    runs: Runs, uninterrupted: Path
) -> None:
    process = runs.started("full")
    wait_until((runs.folder / "full/checkpoints/last.ckpt").exists, 30)
    os.kill(process.pid, signal.SIGTERM)
    process.join(10)
    before = (runs.folder / "full/checkpoints/last.ckpt").read_bytes()
    process = runs.start("full", largest_file=len(before) // 2)
    process.join(WITHIN + 30)
    said = " ".join(runs.said("full").split())
    assert process.exitcode == 2, said
    assert "was not saved: " in said
    assert "it goes on from" in said
    assert "Traceback" not in said
    assert (runs.folder / "full/checkpoints/last.ckpt").read_bytes() == before
    assert not is_finished(runs.folder / "full")
    runs.finish("full")
    assert_same(runs.folder / "full", uninterrupted)


def test_training_goes_on_without_checkpoints_where_that_is_asked_for_but_never_counts_as_finished(
    runs: Runs,
) -> None:
    process = runs.start(
        "on", "+callbacks.best_and_last.on_save_error=continue", largest_file=1_000_000
    )
    process.join(120)
    said = runs.said("on")
    assert process.exitcode == 2, said
    assert said.count("Training continues.") > EPOCHS
    assert f"epoch {EPOCHS}/{EPOCHS}" in said
    assert not is_finished(runs.folder / "on")


def test_a_folder_that_vanishes_ends_the_run_with_a_message(runs: Runs) -> None:
    process = runs.started("gone")
    wait_until((runs.folder / "gone/checkpoints/last.ckpt").exists, 30)
    (runs.folder / "gone").rename(runs.folder / "elsewhere")
    process.join(WITHIN)
    assert process.exitcode == 2, runs.said("gone")
    assert "Traceback" not in runs.said("gone")
    assert str(runs.folder / "gone") in runs.said("gone")
    saved(runs.folder / "elsewhere", "last")


@pytest.mark.parametrize("root", ["/proc/runs", "FILE/runs"])
def test_a_place_that_cannot_be_written_is_refused_before_the_first_step(
    runs: Runs, root: str
) -> None:
    (runs.folder / "file").touch()
    process = runs.start("nowhere", f"run.root={root.replace('FILE', str(runs.folder / 'file'))}")
    process.join(60)
    assert process.exitcode == 2, runs.said("nowhere")
    assert "cannot be made" in runs.said("nowhere")
    assert "epoch 1/" not in runs.said("nowhere")
