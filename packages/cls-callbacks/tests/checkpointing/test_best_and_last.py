import errno
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from cls_callbacks import (
    EMA,
    AtomicCheckpointIO,
    BestAndLastCheckpoint,
    verify_checkpoint,
)


def with_scores(callback: BestAndLastCheckpoint, scores: list[float]) -> BestAndLastCheckpoint:
    """Replace the scores of the validations, in order."""
    remaining = iter(scores)
    callback._get_monitored_value = lambda trainer: next(remaining)  # type: ignore[method-assign]
    return callback


@pytest.mark.parametrize(
    ("mode", "scores", "best_epoch"),
    [
        ("max", [0.1, 0.5, 0.3], 1),
        ("max", [0.5, 0.5, 0.5], 0),
        ("min", [0.5, 0.3, 0.3], 1),
        ("max", [float("nan"), 0.2, 0.1], 1),
    ],
)
def test_best_checkpoint_is_the_first_with_the_best_score(
    module: Any,
    data: Any,
    make_trainer: Any,
    tmp_path: Path,
    mode: Any,
    scores: list[float],
    best_epoch: int,
) -> None:
    callback = with_scores(BestAndLastCheckpoint(mode=mode), scores)
    make_trainer(EMA(), callback).fit(module, datamodule=data)
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert best["scored"]["epoch"] == best_epoch
    assert best["scored"]["value"] == scores[best_epoch] == callback.best_score


@pytest.mark.parametrize("ema", [True, False])
def test_best_checkpoint_holds_the_weights_of_its_score(
    module: Any, new_module: Any, data: Any, make_trainer: Any, tmp_path: Path, ema: bool
) -> None:
    callbacks = (
        [EMA(), BestAndLastCheckpoint("valid_loss", "min")]
        if ema
        else [BestAndLastCheckpoint("valid_loss", "min")]
    )
    make_trainer(*callbacks).fit(module, datamodule=data)
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    fresh = new_module()
    fresh.load_state_dict(best["state_dict"])
    again = make_trainer().validate(fresh, datamodule=data, verbose=False)[0]["valid_loss"]
    assert again == best["scored"]["value"]
    assert best["scored"]["weights"] == ("ema" if ema else "raw")


def test_unlogged_monitor_raises_with_logged_metrics(
    module: Any, data: Any, make_trainer: Any
) -> None:
    with pytest.raises(
        ValueError, match=r"monitor 'valid_f1' is not a logged metric; .*valid_loss, valid_top1"
    ):
        make_trainer(BestAndLastCheckpoint("valid_f1")).fit(module, datamodule=data)


def test_checkpoint_loads_with_weights_only(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    make_trainer(EMA(), BestAndLastCheckpoint(), max_epochs=1).fit(module, datamodule=data)
    for name in ("best", "last"):
        assert "state_dict" in torch.load(
            tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True
        )


def test_last_checkpoint_has_no_score_of_other_weights(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    make_trainer(EMA(), BestAndLastCheckpoint(), check_val_every_n_epoch=2).fit(
        module, datamodule=data
    )
    assert "scored" not in torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert (
        torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["scored"]["epoch"]
        == 1
    )


class Steps(Callback):
    """Record the steps at which a checkpoint is saved."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self.seen.append(trainer.global_step)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({"every_n_steps": 2}, {2, 3, 5, 6}), ({"every_minutes": 1e-9}, {1, 2, 3, 4, 5, 6})],
)
def test_last_checkpoint_is_saved_in_mid_epoch_when_due(
    module: Any, data: Any, make_trainer: Any, settings: dict[str, Any], steps: set[int]
) -> None:
    steps_saved = Steps()
    make_trainer(steps_saved, BestAndLastCheckpoint(**settings), max_epochs=2).fit(
        module, datamodule=data
    )
    assert set(steps_saved.seen) == steps


def test_best_epoch_writes_its_weights_once(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    callback = with_scores(BestAndLastCheckpoint(), [0.1, 0.5, 0.3])
    make_trainer(steps_saved := Steps(), callback, plugins=[AtomicCheckpointIO()]).fit(
        module, datamodule=data
    )
    assert steps_saved.seen == [3, 6, 9]
    folder = tmp_path / "run/checkpoints"
    assert (folder / "best.ckpt").samefile(folder / "previous.ckpt")
    for name in ("best", "previous", "last"):
        verify_checkpoint(folder / f"{name}.ckpt")
    assert torch.load(folder / "best.ckpt", weights_only=True)["scored"]["value"] == 0.5


def test_best_of_a_validation_in_mid_epoch_is_saved_at_once(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    callback = with_scores(BestAndLastCheckpoint(), [0.1, 0.5, 0.3])
    make_trainer(steps_saved := Steps(), callback, max_epochs=1, val_check_interval=1).fit(
        module, datamodule=data
    )
    assert steps_saved.seen == [1, 2, 3]
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert (best["scored"]["step"], best["scored"]["value"]) == (2, 0.5)


def test_best_score_that_was_not_saved_is_forgotten(
    module: Any,
    data: Any,
    make_trainer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log_warnings: list[str],
) -> None:
    callback = with_scores(BestAndLastCheckpoint(on_save_error="continue"), [0.1, 0.5, 0.3])
    fsync = os.fsync

    class FillsTheDisk(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            monkeypatch.setattr("os.fsync", disk_full if trainer.current_epoch == 1 else fsync)

    def disk_full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    make_trainer(FillsTheDisk(), callback, plugins=[AtomicCheckpointIO()]).fit(
        module, datamodule=data
    )
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert len(log_warnings) == 2, "one for best.ckpt and one for last.ckpt"
    assert all(line.endswith("Training continues.\n") for line in log_warnings)
    assert best["scored"]["value"] == callback.best_score == 0.3, (
        "0.5 was not saved, and 0.3 is better than 0.1"
    )


def test_saved_best_stays_best_when_last_cannot_be_saved(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = with_scores(BestAndLastCheckpoint(on_save_error="continue"), [0.1, 0.5, 0.3])
    replace = os.replace

    def fail_for_next(source: Any, target: Any) -> None:
        if "next.ckpt" in str(target) and trainer.current_epoch == 1:
            raise OSError(errno.EIO, "input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_for_next)
    trainer = make_trainer(callback, plugins=[AtomicCheckpointIO()])
    trainer.fit(module, datamodule=data)
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert best["scored"]["value"] == callback.best_score == 0.5
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["epoch"] == 2


@pytest.mark.parametrize("name", ["every_n_steps", "every_minutes"])
def test_intervals_must_be_positive(name: str) -> None:
    settings: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be above 0, or null to turn it off, got 0"):
        BestAndLastCheckpoint(**settings)


def test_previous_checkpoint_is_kept_with_its_checksum(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    make_trainer(BestAndLastCheckpoint(), max_epochs=3, plugins=[AtomicCheckpointIO()]).fit(
        module, datamodule=data
    )
    folder = tmp_path / "run/checkpoints"
    for name, epoch in (("last", 2), ("previous", 1)):
        verify_checkpoint(folder / f"{name}.ckpt")
        assert (folder / f"{name}.ckpt.sha256").read_text().endswith(f"  {name}.ckpt\n")
        assert torch.load(folder / f"{name}.ckpt", weights_only=True)["epoch"] == epoch


def test_previous_checkpoint_survives_a_failed_save_over_a_damaged_last(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(
        callback := BestAndLastCheckpoint(), max_epochs=2, plugins=[AtomicCheckpointIO()]
    )
    trainer.fit(module, datamodule=data)
    folder = tmp_path / "run/checkpoints"
    (folder / "last.ckpt").write_bytes(b"damaged")

    def disk_full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(OSError, match="no space left"):
        callback.save_last(trainer)
    verify_checkpoint(folder / "previous.ckpt")
    assert torch.load(folder / "previous.ckpt", weights_only=True)["epoch"] == 0


def test_saves_are_reported_after_the_files_have_changed(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    callback = with_scores(BestAndLastCheckpoint(keep_epochs=2), [0.1, 0.3])
    reported = []

    def on_saved(step: int) -> None:
        last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
        epochs = len(list((tmp_path / "run/checkpoints").glob("epoch_*.ckpt")))
        reported.append((step, last["global_step"], epochs))

    callback.on_saved = on_saved
    trainer = make_trainer(callback, max_epochs=2)
    trainer.fit(module, datamodule=data)
    steps = trainer.global_step // 2
    assert reported == [(steps, steps, 1), (2 * steps, 2 * steps, 2)]


def test_checkpoint_holds_metadata_under_run(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    callback = BestAndLastCheckpoint()
    callback.metadata = {"config": {"seed": 1}, "versions": {"torch": "2"}}
    make_trainer(callback, max_epochs=1).fit(module, datamodule=data)
    for name in ("best", "last"):
        assert (
            torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True)["run"]
            == callback.metadata
        )


def kept_epochs(tmp_path: Path) -> list[int]:
    folder = tmp_path / "run/checkpoints"
    for path in folder.glob("epoch_*.ckpt"):
        verify_checkpoint(path)
        assert path.with_name(f"{path.name}.sha256").exists()
        assert path.stem == f"epoch_{torch.load(path, weights_only=True)['epoch'] + 1:05d}"
    assert len(list(folder.glob("epoch_*"))) == 2 * len(list(folder.glob("epoch_*.ckpt")))
    return sorted(int(path.stem.removeprefix("epoch_")) for path in folder.glob("epoch_*.ckpt"))


@pytest.mark.parametrize("linked", [True, False])
def test_keep_epochs_keeps_the_latest_epochs(
    module: Any,
    data: Any,
    make_trainer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    linked: bool,
) -> None:
    if not linked:

        def no_links(*args: Any) -> None:
            raise PermissionError(errno.EPERM, "this file system has no links")

        monkeypatch.setattr(os, "link", no_links)
    trainer = make_trainer(
        BestAndLastCheckpoint(keep_epochs=2), max_epochs=4, plugins=[AtomicCheckpointIO()]
    )
    trainer.fit(module, datamodule=data)
    assert kept_epochs(tmp_path) == [3, 4]
    folder = tmp_path / "run/checkpoints"
    assert (folder / "last.ckpt").samefile(folder / "epoch_00004.ckpt") == linked


@pytest.mark.parametrize(("checkpoints", "epochs"), [(2.5, [3, 4]), (0.5, [4])])
def test_keep_gigabytes_limits_kept_epochs_but_keeps_the_latest(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path, checkpoints: float, epochs: list[int]
) -> None:
    make_trainer(BestAndLastCheckpoint(), max_epochs=1).fit(module, datamodule=data)
    size = (tmp_path / "run/checkpoints/last.ckpt").stat().st_size
    callback = BestAndLastCheckpoint(keep_gigabytes=checkpoints * size / 1e9)
    make_trainer(callback, max_epochs=4, plugins=[AtomicCheckpointIO()]).fit(
        module, datamodule=data
    )
    assert kept_epochs(tmp_path) == epochs


@pytest.mark.parametrize("name", ["keep_epochs", "keep_gigabytes"])
def test_keep_limits_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be above 0, or null to turn it off, got 0"):
        BestAndLastCheckpoint(**{name: 0})


class StopsAfter(Callback):
    """Stops training after some epochs, as EarlyStopping does."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def test_a_run_stopped_by_a_callback_does_not_train_on_when_it_is_resumed(
    module: Any, new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    """C2: a process that was killed right after the last epoch must not train another one."""
    last = tmp_path / "run/checkpoints/last.ckpt"
    make_trainer(StopsAfter(2), BestAndLastCheckpoint(), max_epochs=4).fit(module, datamodule=data)
    assert torch.load(last, weights_only=True)["epoch"] == 1

    resumed = make_trainer(BestAndLastCheckpoint(), max_epochs=4)
    resumed.fit(new_module(), datamodule=data, ckpt_path=last, weights_only=True)
    assert torch.load(last, weights_only=True)["epoch"] == 1


def test_a_run_stopped_by_its_time_limit_goes_on_with_a_longer_one(
    module: Any, new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    """A15."""
    last = tmp_path / "run/checkpoints/last.ckpt"
    limit = Timer(timedelta(microseconds=1), interval="epoch", verbose=False)
    callbacks = (limit, BestAndLastCheckpoint())
    make_trainer(*callbacks, max_epochs=2, min_epochs=1).fit(module, datamodule=data)
    assert torch.load(last, weights_only=True)["epoch"] == 0

    limit = Timer(timedelta(hours=1), interval="epoch", verbose=False)
    resumed = make_trainer(limit, BestAndLastCheckpoint(), max_epochs=2)
    resumed.fit(new_module(), datamodule=data, ckpt_path=last, weights_only=True)
    assert torch.load(last, weights_only=True)["epoch"] == 1
