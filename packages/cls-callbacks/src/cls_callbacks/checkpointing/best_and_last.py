"""Save the best and the latest checkpoint, each with the score of its weights."""

import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypedDict

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, Timer
from loguru import logger

from cls_callbacks.checkpointing.atomic_io import CheckpointNotSavedError
from cls_callbacks.checkpointing.checkpoint_files import (
    duplicate_checkpoint,
    remove_checkpoint,
    rename_checkpoint,
)
from cls_callbacks.checkpointing.rank_agreement import RankAgreement
from cls_callbacks.checkpointing.resume_points import can_resume_after_batch
from cls_callbacks.trainer_access import get_run_paths
from cls_export.contract.suggestions import did_you_mean

_EPOCH_FILE = "epoch_{:05d}.ckpt"
_EPOCH_GLOB = "epoch_*.ckpt"


class CheckpointScore(TypedDict):
    """The score of a checkpoint's `state_dict`, stored in the checkpoint under `scored`.

    `weights` is `ema` if averaged weights were validated and saved, otherwise `raw`. `epoch`
    counts from 0; `step` counts optimizer steps.
    """

    metric: str
    value: float
    epoch: int
    step: int
    weights: Literal["ema", "raw"]


class BestAndLastCheckpoint(Checkpoint):
    """Save best.ckpt with the best-scoring weights, and last.ckpt to resume from.

    Files go to `checkpoints/` in `trainer.default_root_dir`. When last.ckpt is replaced, the older
    one becomes previous.ckpt, a fallback for a damaged last.ckpt. If scores are equal, the earlier
    weights are the best.

    best.ckpt is saved right after its validation. If that validation ends the epoch, best.ckpt is
    saved at the end of the epoch, with last.ckpt as a hard link to it, so that the weights are
    written once. If another callback raises before that, the older best.ckpt is not replaced.

    Args:
        monitor: The logged metric that decides which weights are best.
        mode: Whether a larger (`max`) or a smaller (`min`) value is better.
        every_n_steps: Also save last.ckpt after this many optimizer steps.
        every_minutes: Also save last.ckpt when this many minutes have passed since the last save.
        on_save_error: `stop` ends training with the error. `continue` logs it, leaves the older
            files, and tries again at the next save; training still fails at its end if best.ckpt
            or the final last.ckpt is missing.
        keep_epochs: Also save the last.ckpt of this many latest epochs, as epoch_00012.ckpt
            (counted from 1). None saves none, or as many as `keep_gigabytes` allows.
        keep_gigabytes: Limit the total size of these epoch checkpoints to this many GB (1e9
            bytes); the latest is never deleted.

    Attributes:
        metadata: Plain values that each checkpoint stores under `run`, such as the configuration.
        best_score: The best value of the metric so far; None before the first validation.
        on_saved: Called on the first rank with the number of optimizer steps, when files in
            `checkpoints/` have changed.
    """

    def __init__(
        self,
        monitor: str = "valid_top1",
        mode: Literal["max", "min"] = "max",
        *,
        every_n_steps: int | None = None,
        every_minutes: float | None = None,
        on_save_error: Literal["stop", "continue"] = "stop",
        keep_epochs: int | None = None,
        keep_gigabytes: float | None = None,
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
        if on_save_error not in ("stop", "continue"):
            raise ValueError(f"on_save_error must be 'stop' or 'continue', got {on_save_error!r}")

        _check_positive("every_n_steps", every_n_steps)
        _check_positive("every_minutes", every_minutes)
        _check_positive("keep_epochs", keep_epochs)
        _check_positive("keep_gigabytes", keep_gigabytes)

        self.monitor = monitor
        self.mode = mode
        self.every_n_steps = every_n_steps
        self.every_minutes = every_minutes
        self.metadata: dict[str, Any] = {}
        self.on_save_error = on_save_error
        self.keep_epochs = keep_epochs
        self.keep_gigabytes = keep_gigabytes
        self.on_saved: Callable[[int], None] | None = None

        self.best_score: float | None = None
        self._score: CheckpointScore | None = None
        self._saved_at = 0.0
        self._saved_step = 0
        self._save_error: OSError | None = None
        self._is_last_missing = False
        self._is_best_pending = False
        self._best_score_on_disk: float | None = None
        self._agreement: RankAgreement | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the clock, and create the folder."""
        self._saved_at = time.monotonic()
        self._saved_step = trainer.global_step
        self._save_error = None
        self._is_last_missing = False
        self._is_best_pending = False
        self._agreement = RankAgreement(trainer)
        if trainer.is_global_zero:
            get_run_paths(trainer).checkpoints.mkdir(parents=True, exist_ok=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save last.ckpt if it is due and training can resume from here."""
        if self._is_due(trainer) and can_resume_after_batch(trainer, batch_idx):
            self.save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save best.ckpt if this score is the best.

        At the end of an epoch, defer to `on_train_epoch_end`.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = self._get_monitored_value(trainer)
        self._score = CheckpointScore(
            metric=self.monitor,
            value=value,
            epoch=trainer.current_epoch,
            step=trainer.global_step,
            weights="raw",
        )
        if not self._is_better(value):
            return
        self._best_score_on_disk = self.best_score
        self.best_score = value
        self._is_best_pending = True
        if not trainer.is_last_batch and self._save_pending_best(trainer):
            self._report_save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save last.ckpt.

        Also save a checkpoint of this epoch if `keep_epochs` or `keep_gigabytes` is set.
        """
        self.save_last(trainer)
        if self.keep_epochs is None and self.keep_gigabytes is None:
            return
        if not self._is_last_missing:
            self._try_to_save(trainer, lambda: self._keep_epoch(trainer))
            self._report_save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise an earlier save error if it left the run without best.ckpt or last.ckpt."""
        if self._save_error is None:
            return

        error: OSError | None = None
        if self._is_last_missing or not get_run_paths(trainer).best.exists():
            error = self._save_error
        error = self._agree_on_error(error)
        if error is not None:
            raise error

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the metadata, whether training stops here, and the score of these weights."""
        checkpoint["run"] = self.metadata
        checkpoint["should_stop"] = trainer.should_stop and not _is_out_of_time(trainer)
        if self._score is None or self._score["step"] != trainer.global_step:
            return
        # EMA, called earlier, sets `weights` if it saves averaged ones.
        weights = checkpoint.get("weights", "raw")
        checkpoint["scored"] = {**self._score, "weights": weights}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Stop again if a callback had stopped training, such as EarlyStopping.

        Lightning forgets this, so a run that was killed right after would train one more epoch.
        """
        if trainer.state.fn == "fit" and checkpoint.get("should_stop", False):
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and the metric that it belongs to."""
        return {
            "best_score": self.best_score,
            "monitor": self.monitor,
            "mode": self.mode,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score, unless another metric is monitored now."""
        is_same_monitor = state_dict["monitor"] == self.monitor
        if is_same_monitor and state_dict["mode"] == self.mode:
            self.best_score = state_dict["best_score"]

    def save_last(self, trainer: Trainer) -> None:
        """Save last.ckpt and a pending best.ckpt; the older last.ckpt becomes previous.ckpt."""
        is_best = self._save_pending_best(trainer)
        is_saved = self._try_to_save(trainer, lambda: self._replace_last(trainer, is_best=is_best))
        self._is_last_missing = not is_saved
        self._saved_at = time.monotonic()
        self._saved_step = trainer.global_step
        if is_saved:
            self._report_save(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        steps = trainer.global_step - self._saved_step
        if self.every_n_steps is not None and steps >= self.every_n_steps:
            return True

        if self.every_minutes is None:
            return False
        minutes = (time.monotonic() - self._saved_at) / 60
        is_time = minutes >= self.every_minutes
        assert self._agreement is not None
        return self._agreement.exchange(int(is_time)) > 0

    def _save_pending_best(self, trainer: Trainer) -> bool:
        """Save best.ckpt if it is pending; return whether it was saved."""
        if not self._is_best_pending:
            return False
        self._is_best_pending = False
        best = get_run_paths(trainer).best
        if not self._try_to_save(trainer, lambda: _save_checkpoint(trainer, best)):
            self.best_score = self._best_score_on_disk
            return False
        return True

    def _replace_last(self, trainer: Trainer, *, is_best: bool) -> None:
        paths = get_run_paths(trainer)
        # The new file is complete before the older ones move: last.ckpt may be damaged, and the
        # disk full.
        if not is_best:
            _save_checkpoint(trainer, paths.next)
        elif trainer.is_global_zero:
            duplicate_checkpoint(paths.best, paths.next)
        if trainer.is_global_zero:
            if paths.last.exists():
                rename_checkpoint(paths.last, paths.previous)
            rename_checkpoint(paths.next, paths.last)

    def _keep_epoch(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        paths = get_run_paths(trainer)
        epoch_file = _EPOCH_FILE.format(trainer.current_epoch + 1)
        duplicate_checkpoint(paths.last, paths.checkpoints / epoch_file)

        newest_first = sorted(paths.checkpoints.glob(_EPOCH_GLOB), reverse=True)
        sizes = [path.stat().st_size for path in newest_first]
        total_sizes = list(itertools.accumulate(sizes))
        max_epochs = math.inf if self.keep_epochs is None else self.keep_epochs
        max_bytes = math.inf if self.keep_gigabytes is None else self.keep_gigabytes * 1e9

        for index in range(1, len(newest_first)):
            if index >= max_epochs or total_sizes[index] > max_bytes:
                remove_checkpoint(newest_first[index])

    def _try_to_save(self, trainer: Trainer, save: Callable[[], None]) -> bool:
        """Call `save` on all ranks, and return whether the first one could write the file.

        Errors are handled as `on_save_error` says.
        """
        error = self._agree_on_error(_check_folder_exists(trainer))
        if error is None:
            try:
                save()
            except _ContentError as failure:
                raise failure.error from None
            except OSError as own_error:
                error = own_error
            error = self._agree_on_error(error)
        if error is None:
            return True

        self._save_error = error
        if self.on_save_error == "stop":
            raise error
        logger.error("{}. Training continues.", error)
        return False

    def _agree_on_error(self, error: OSError | None) -> OSError | None:
        """Return the error of the first rank, which writes the files; None without one."""
        assert self._agreement is not None
        message = self._agreement.share_message(None if error is None else str(error))
        if message is None or self._agreement.is_first:
            return error
        return CheckpointNotSavedError(message)

    def _report_save(self, trainer: Trainer) -> None:
        if self.on_saved is not None and trainer.is_global_zero:
            self.on_saved(trainer.global_step)

    def _get_monitored_value(self, trainer: Trainer) -> float:
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise ValueError(
                f"monitor {self.monitor!r} is not a logged metric; "
                f"{did_you_mean(self.monitor, metrics)}"
            )
        return float(metrics[self.monitor])

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best_score is None:
            return True
        if self.mode == "max":
            return value > self.best_score
        return value < self.best_score


class _ContentError(Exception):
    """One of several ranks could not build a checkpoint, of which the others do not know.

    They wait for it, so training cannot continue.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _save_checkpoint(trainer: Trainer, path: Path) -> None:
    try:
        trainer.save_checkpoint(path)
    except CheckpointNotSavedError:
        # The other ranks wait for the first one at the end of `save_checkpoint` (lightning 2.6.6).
        trainer.strategy.barrier()
        raise
    except OSError as error:
        if trainer.world_size > 1:
            raise _ContentError(error) from error
        raise


def _check_folder_exists(trainer: Trainer) -> CheckpointNotSavedError | None:
    """Return an error if the folder was deleted.

    Saving would create it again, without the other files of the run.
    """
    folder = get_run_paths(trainer).checkpoints
    if not trainer.is_global_zero or folder.is_dir():
        return None
    return CheckpointNotSavedError(f"{folder} was deleted; no checkpoint was saved")


def _is_out_of_time(trainer: Trainer) -> bool:
    """Whether `max_time` has ended training; a longer one lets the resumed run go on."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # not declared by Lightning
        if isinstance(callback, Timer):
            remaining = callback.time_remaining()
            if remaining is not None and remaining <= 0:
                return True
    return False


def _check_positive(name: str, value: float | None) -> None:
    if value is not None and value <= 0:
        raise ValueError(f"{name} must be above 0, or null to turn it off, got {value}")
