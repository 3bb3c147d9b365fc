"""Saves that are written while training goes on keep every promise of those that are not."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from cls_callbacks import (
    EMA,
    AtomicCheckpointIO,
    BestAndLastCheckpoint,
    CheckpointNotSavedError,
    PreemptionCheckpoint,
    TrainingInterrupted,
    verify_checkpoint,
)

SECONDS = 30.0
"""How long a test waits for what must happen soon."""


class ScoredCheckpoint(BestAndLastCheckpoint):
    """Takes its scores from a list, one for each epoch."""

    def __init__(self, scores: list[float], **settings: Any) -> None:
        super().__init__(**{"asynchronous": True, **settings})
        self._scores = scores

    def _get_monitored_value(self, trainer: Any) -> float:
        return self._scores[trainer.current_epoch]


class SlowDisk(AtomicCheckpointIO):
    """Starts to write when `is_ready` is set, or after some seconds.

    Attributes:
        writes: The name, epoch, and thread of each file that was written.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.is_ready = threading.Event()
        self.seconds = seconds
        self.writes: list[tuple[str, int, threading.Thread]] = []
        self._lock = threading.Lock()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, *more: Any) -> None:
        assert self._lock.acquire(blocking=False), "two checkpoints are written at once"
        try:
            self.is_ready.wait(self.seconds)
            super().save_checkpoint(checkpoint, path, *more)
            self.writes.append((Path(path).name, checkpoint["epoch"], threading.current_thread()))
        finally:
            self._lock.release()


class FailingDisk(AtomicCheckpointIO):
    """Cannot write some files in some epochs."""

    def __init__(self, names: tuple[str, ...], *epochs: int, error: Exception) -> None:
        self.names = names
        self.epochs = epochs
        self.error = error

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, *more: Any) -> None:
        if checkpoint["epoch"] in self.epochs and Path(path).stem in self.names:
            raise self.error
        super().save_checkpoint(checkpoint, path, *more)


class At(Callback):
    """Calls a function in one training batch."""

    def __init__(self, epoch: int, batch: int, call: Callable[[], object]) -> None:
        self.moment = (epoch, batch)
        self.call = call

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        if (trainer.current_epoch, index) == self.moment:
            self.call()


def load(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"checkpoints/{name}.ckpt"
    verify_checkpoint(path)
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def flatten(value: Any, key: str = "") -> dict[str, Any]:
    """Return all values of nested dictionaries and lists by their path."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        return {key: value}
    flat = {f"{key} (empty)": type(value)} if not items else {}
    for name, item in items:
        flat |= flatten(item, f"{key}/{name}")
    return flat


def assert_same_content(one: Any, other: Any) -> None:
    first, second = flatten(one), flatten(other)
    assert first.keys() == second.keys()
    for key, value in first.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, second[key]), key
            assert value.stride() == second[key].stride(), key
        else:
            assert value == second[key], key


def writers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "checkpoint writer"]


@pytest.mark.parametrize("ema", [True, False])
def test_training_goes_on_during_a_write_and_does_not_change_what_is_written(
    new_module: Any, data: Any, make_trainer: Any, tmp_path: Path, ema: bool
) -> None:
    disk = SlowDisk()
    during = []

    def release() -> None:
        during.append((tmp_path / "asynchronous/checkpoints/last.ckpt").exists())
        disk.is_ready.set()

    scores = [0.1, 0.5, 0.3]
    for name, plugin, asynchronous in (
        ("plain", AtomicCheckpointIO(), False),
        ("asynchronous", disk, True),
    ):
        callback = ScoredCheckpoint(scores, asynchronous=asynchronous, keep_epochs=3)
        callbacks = [callback, At(1, 2, release if asynchronous else bool)]
        make_trainer(
            *([EMA()] if ema else []),
            *callbacks,
            plugins=[plugin],
            default_root_dir=tmp_path / name,
        ).fit(new_module(), datamodule=data)

    assert during == [False], "the first checkpoint was written before the last batch of epoch 2"
    for name in ("best", "last", "previous", "epoch_00001", "epoch_00002", "epoch_00003"):
        assert_same_content(load(tmp_path / "plain", name), load(tmp_path / "asynchronous", name))
    folders = [tmp_path / name / "checkpoints" for name in ("plain", "asynchronous")]
    names = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    assert names[0] == names[1]
    assert writers() == []


def test_the_next_save_waits_for_the_one_before(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    disk = SlowDisk(seconds=0.05)  # fails if two are written at once
    callback = ScoredCheckpoint([0.1, 0.5, 0.3], every_n_steps=1)
    make_trainer(callback, plugins=[disk]).fit(module, datamodule=data)
    names = [name for name, _, _ in disk.writes]
    each_epoch = ["next.ckpt", "next.ckpt"]
    assert names == [*each_epoch, "best.ckpt", *each_epoch, "best.ckpt", *each_epoch, "next.ckpt"]
    assert load(tmp_path / "run", "last")["epoch"] == 2


def test_mid_epoch_validation_saves_its_best_weights(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    callback = BestAndLastCheckpoint("valid_loss", "min", asynchronous=True)
    trainer = make_trainer(
        callback, max_epochs=2, val_check_interval=1, plugins=[SlowDisk(seconds=0.02)]
    )
    trainer.fit(module, datamodule=data)
    best = load(tmp_path / "run", "best")
    assert best["scored"]["value"] == callback.best_score
    assert best["callbacks"]["BestAndLastCheckpoint"]["best_score"] == callback.best_score
    assert load(tmp_path / "run", "last")["global_step"] == trainer.global_step


def test_saves_are_reported_in_the_training_thread_after_they_are_on_disk(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    callback = ScoredCheckpoint([0.1, 0.5, 0.3], keep_epochs=2)
    reported = []
    reported_at: list[int] = []

    def on_saved(step: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        assert writers() == []
        last = load(tmp_path / "run", "last")
        kept = sorted(path.stem for path in tmp_path.glob("run/checkpoints/epoch_*.ckpt"))
        reported.append((step, last["global_step"], kept[-1]))
        reported_at.append(trainer.global_step)

    callback.on_saved = on_saved
    pause = At(1, 1, lambda: time.sleep(0.5))  # the first write ends in the middle of an epoch
    trainer = make_trainer(callback, pause, plugins=[SlowDisk(0.1)])
    trainer.fit(module, datamodule=data)
    assert reported_at[0] < 6, "the first save was reported before the end of the next epoch"
    assert reported == [(3, 3, "epoch_00001"), (6, 6, "epoch_00002"), (9, 9, "epoch_00003")]


def not_saved() -> CheckpointNotSavedError:
    return CheckpointNotSavedError("the disk is full")


@pytest.mark.parametrize(("epoch", "seen_in"), [(0, 1), (1, 2), (2, 3)])
def test_an_error_stops_training_at_the_next_validation_or_at_the_end(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path, epoch: int, seen_in: int
) -> None:
    disk = FailingDisk(("best", "next"), epoch, error=not_saved())
    trainer = make_trainer(ScoredCheckpoint([0.1, 0.5, 0.3]), plugins=[disk])
    with pytest.raises(CheckpointNotSavedError, match="the disk is full"):
        trainer.fit(module, datamodule=data)
    assert trainer.current_epoch == seen_in
    if epoch > 0:
        assert load(tmp_path / "run", "last")["epoch"] == epoch - 1


def test_another_error_of_the_writer_stops_training(
    module: Any, data: Any, make_trainer: Any
) -> None:
    disk = FailingDisk(("best",), 0, error=ValueError("a bug"))
    trainer = make_trainer(
        ScoredCheckpoint([0.1, 0.5, 0.3], on_save_error="continue"), plugins=[disk]
    )
    with pytest.raises(ValueError, match="a bug"):
        trainer.fit(module, datamodule=data)
    assert trainer.current_epoch == 1


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize(
    ("files", "best", "last_epoch"),
    [(("best", "next"), 0.3, 2), (("best",), 0.3, 2), (("next",), 0.5, 1)],
)
def test_training_that_continues_keeps_the_score_of_the_weights_on_disk(
    module: Any,
    data: Any,
    make_trainer: Any,
    tmp_path: Path,
    log_warnings: list[str],
    files: tuple[str, ...],
    best: float,
    last_epoch: int,
    asynchronous: bool,
) -> None:
    """The second epoch cannot save best.ckpt, or the third cannot save last.ckpt."""
    epoch = 1 if "best" in files else 2
    callback = ScoredCheckpoint(
        [0.1, 0.5, 0.3], on_save_error="continue", asynchronous=asynchronous
    )
    trainer = make_trainer(callback, plugins=[FailingDisk(files, epoch, error=not_saved())])
    if last_epoch == 1:
        with pytest.raises(CheckpointNotSavedError):  # the final last.ckpt is missing
            trainer.fit(module, datamodule=data)
    else:
        trainer.fit(module, datamodule=data)
    assert len(log_warnings) == len(files)
    assert callback.best_score == load(tmp_path / "run", "best")["scored"]["value"] == best
    assert load(tmp_path / "run", "last")["epoch"] == last_epoch


@pytest.mark.parametrize("asynchronous", [True, False])
def test_last_checkpoint_has_the_older_best_score_if_best_was_not_saved(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path, asynchronous: bool
) -> None:
    callback = ScoredCheckpoint([0.1, 0.5], on_save_error="continue", asynchronous=asynchronous)
    disk = FailingDisk(("best",), 1, error=not_saved())
    make_trainer(callback, plugins=[disk], max_epochs=2).fit(module, datamodule=data)
    last = load(tmp_path / "run", "last")
    assert last["epoch"] == 1
    assert last["callbacks"]["ScoredCheckpoint"]["best_score"] == 0.1


@pytest.mark.parametrize("failure", [ValueError("another callback"), SystemExit(143)])
def test_an_exception_in_training_waits_for_the_write(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path, failure: BaseException
) -> None:
    def fail() -> None:
        raise failure

    reported: list[int] = []
    callback = ScoredCheckpoint([0.1, 0.5])
    callback.on_saved = reported.append
    trainer = make_trainer(callback, At(1, 0, fail), plugins=[SlowDisk(0.3)], max_epochs=2)
    with pytest.raises(type(failure)):
        trainer.fit(module, datamodule=data)
    assert writers() == []
    assert reported == [3]
    assert load(tmp_path / "run", "last")["epoch"] == 0


def test_an_exception_in_training_is_not_replaced_by_an_error_of_the_writer(
    module: Any, data: Any, make_trainer: Any, log_warnings: list[str]
) -> None:
    def fail() -> None:
        raise ValueError("another callback")

    disk = FailingDisk(("best",), 0, error=not_saved())
    trainer = make_trainer(ScoredCheckpoint([0.1, 0.5]), At(1, 0, fail), plugins=[disk])
    with pytest.raises(ValueError, match="another callback"):
        trainer.fit(module, datamodule=data)
    assert log_warnings == ["the disk is full\n"]


@pytest.mark.parametrize(("epoch", "batch", "step"), [(0, 0, 1), (1, 1, 5), (1, 2, 6)])
def test_a_signal_ends_training_after_its_checkpoint_is_on_disk(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path, epoch: int, batch: int, step: int
) -> None:
    trainer = make_trainer(
        ScoredCheckpoint([0.1, 0.5, 0.3]),
        PreemptionCheckpoint(),
        At(epoch, batch, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        plugins=[SlowDisk(0.2)],
    )
    with pytest.raises(TrainingInterrupted):
        trainer.fit(module, datamodule=data)
    assert load(tmp_path / "run", "last")["global_step"] == step
    assert writers() == []


def test_state_that_cannot_be_saved_stops_training_at_once(
    module: Any, data: Any, make_trainer: Any
) -> None:
    callback = ScoredCheckpoint([0.1, 0.5, 0.3])
    callback.metadata = {"unpicklable": threading.Lock()}
    trainer = make_trainer(callback, plugins=[AtomicCheckpointIO()])
    with pytest.raises(TypeError, match="pickle"):
        trainer.fit(module, datamodule=data)
    assert trainer.current_epoch == 0


@pytest.mark.parametrize(("setting", "is_main"), [("auto", True), (False, True), (True, False)])
def test_auto_writes_in_the_training_thread_on_a_cpu(
    module: Any, data: Any, make_trainer: Any, setting: Any, is_main: bool
) -> None:
    disk = SlowDisk(0)
    callback = ScoredCheckpoint([0.1], asynchronous=setting)
    make_trainer(callback, plugins=[disk], max_epochs=1).fit(module, datamodule=data)
    ((_, _, thread),) = disk.writes
    assert (thread is threading.main_thread()) == is_main


def test_asynchronous_must_be_a_boolean_or_auto() -> None:
    setting: Any = "always"
    with pytest.raises(ValueError, match="must be true, false, or 'auto', got 'always'"):
        BestAndLastCheckpoint(asynchronous=setting)
