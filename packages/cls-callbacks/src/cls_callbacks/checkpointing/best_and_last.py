"""best.ckpt and last.ckpt, each with the score that its very weights earned."""

import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypedDict

import fsspec
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from loguru import logger

from cls_callbacks.checkpointing.atomic_io import (
    CheckpointNotSavedError,
    duplicate_checkpoint,
    remove_checkpoint,
    rename_checkpoint,
)

BEST = "best.ckpt"
LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
"""What last.ckpt was before; for the case that it is damaged."""
EPOCH = "epoch_{:05d}.ckpt"
"""What last.ckpt was at the end of an epoch, counted from 1; see `keep_epochs` and `keep_gigabytes`."""
NEXT = "next.ckpt"
"""What is about to be last.ckpt; it has this name for a moment, between being written and two renames."""


class ScoredWeights(TypedDict):
    """What a checkpoint says of its `state_dict`, under the key `scored`.

    `weights` is `ema` when an average was validated and saved, else `raw`; `epoch` counts from 0;
    `step` counts optimizer steps.
    """

    metric: str
    value: float
    epoch: int
    step: int
    weights: Literal["ema", "raw"]


class BestAndLastCheckpoint(Checkpoint):
    """Saves best.ckpt with the weights that earned the best score, and last.ckpt after every epoch and within it.

    Both lie in `trainer.default_root_dir/checkpoints`, beside previous.ckpt, which last.ckpt was before. Of equal
    scores the earlier stays. best.ckpt is saved right after its validation; where the epoch ends with that, it is saved
    with last.ckpt, one file by two names, so that an epoch writes its weights once. (A run that an error of another
    callback ends between the two has the best of before.)

    Args:
        monitor: the metric that decides, as the module logs it.
        mode: whether it is to be large or small.
        every_n_steps: save last.ckpt after so many optimizer steps, too; None for epochs alone.
        every_minutes: save last.ckpt when so many minutes have passed since it was last saved, too.
        on_save_error: `stop` ends the training with the error; `go_on` tells of it, keeps the files of
            before, and tries again when the next is due. At the training's end both files have to be there.
        keep_epochs: keep what last.ckpt was after each epoch, of so many latest epochs, as epoch_00012.ckpt; None for
            none of them, or as many as `keep_gigabytes` holds.
        keep_gigabytes: keep no more of these than so many GB (1e9 bytes) hold; the latest stays in any case.
        copy_to: copy best.ckpt and last.ckpt, each with its checksum, to RUN/checkpoints below this folder or fsspec
            URL (gs://bucket/runs) when they have been saved. A copy that fails is told, and training goes on.
    """

    def __init__(
        self,
        monitor: str = "valid_top1",
        mode: Literal["max", "min"] = "max",
        *,
        every_n_steps: int | None = None,
        every_minutes: float | None = None,
        on_save_error: Literal["stop", "go_on"] = "stop",
        keep_epochs: int | None = None,
        keep_gigabytes: float | None = None,
        copy_to: str | None = None,
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
        if on_save_error not in ("stop", "go_on"):
            raise ValueError(f"on_save_error must be 'stop' or 'go_on', got {on_save_error!r}")
        for name, value in (("every_n_steps", every_n_steps), ("every_minutes", every_minutes)):
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, or null for epochs alone, got {value}")
        for name, value in (("keep_epochs", keep_epochs), ("keep_gigabytes", keep_gigabytes)):
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, or null, got {value}")
        self.monitor = monitor
        self.mode = mode
        self.every_n_steps = every_n_steps
        self.every_minutes = every_minutes
        self.metadata: dict[str, Any] = {}
        """Plain values that each checkpoint keeps under `run`: of what data, settings and code it is."""
        self.on_save_error = on_save_error
        self.keep_epochs = keep_epochs
        self.keep_gigabytes = keep_gigabytes
        self._remote = None if copy_to is None else _Remote(copy_to)
        self.best_score: float | None = None
        self._score: ScoredWeights | None = None
        self._saved_at = 0.0
        self._saved_step = 0
        self._failed: OSError | None = None
        self._failed_last = False
        self._beaten: tuple[float | None] | None = None
        """The best score of before, while best.ckpt waits for the end of the epoch."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        self._failed, self._failed_last, self._beaten = None, False, None
        if trainer.is_global_zero:
            checkpoints_folder(trainer).mkdir(parents=True, exist_ok=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save last.ckpt if it is time, and the training can go on from here."""
        steps, minutes = (
            trainer.global_step - self._saved_step,
            (time.monotonic() - self._saved_at) / 60,
        )
        due = (self.every_n_steps is not None and steps >= self.every_n_steps) or (
            self.every_minutes is not None and minutes >= self.every_minutes
        )
        if due and can_go_on_behind(trainer, batch_idx):
            self.save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save best.ckpt, or let the epoch's end do it, if this validation beat all before it."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = self._monitored(trainer)
        self._score = ScoredWeights(
            metric=self.monitor,
            value=value,
            epoch=trainer.current_epoch,
            step=trainer.global_step,
            weights="raw",
        )
        if self._is_better(value):
            self._beaten, self.best_score = (self.best_score,), value
            if not trainer.is_last_batch:
                self._save_best(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save last.ckpt, from which a run goes on, and keep it as this epoch's if that was asked for."""
        self.save_last(trainer)
        keeps = self.keep_epochs is not None or self.keep_gigabytes is not None
        if keeps and not self._failed_last and trainer.is_global_zero:
            self._saved(trainer, lambda: self._keep_epoch(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to end without what the training was for.

        Raises:
            OSError: best.ckpt or the last epoch's last.ckpt is missing, since saving failed with this.
        """
        if self._failed is not None and (
            self._failed_last or not (checkpoints_folder(trainer) / BEST).exists()
        ):
            raise self._failed

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the score beside the weights that earned it; EMA has said before whether it averaged them."""
        checkpoint["run"] = self.metadata
        if self._score is not None and self._score["step"] == trainer.global_step:
            checkpoint["scored"] = {**self._score, "weights": checkpoint.get("weights", "raw")}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"best_score": self.best_score, "monitor": self.monitor, "mode": self.mode}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        if (state_dict["monitor"], state_dict["mode"]) == (self.monitor, self.mode):
            self.best_score = state_dict["best_score"]

    def save_last(self, trainer: Trainer) -> None:
        """Save last.ckpt, and keep the one before as previous.ckpt; if best.ckpt waits for it, save that, too."""
        is_best = self._save_best(trainer)
        self._failed_last = not self._saved(
            trainer, lambda: self._replace_last(trainer, is_best=is_best)
        )
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        if not self._failed_last:
            self._copy(trainer, LAST)

    def _save_best(self, trainer: Trainer) -> bool:
        """Save best.ckpt if it waits for that; say whether it is what last.ckpt would be now."""
        beaten, self._beaten = self._beaten, None
        if beaten is None:
            return False
        if self._saved(
            trainer, lambda: trainer.save_checkpoint(checkpoints_folder(trainer) / BEST)
        ):
            self._copy(trainer, BEST)
            return True
        (self.best_score,) = beaten  # which is what best.ckpt still holds
        return False

    def _replace_last(self, trainer: Trainer, *, is_best: bool) -> None:
        folder = checkpoints_folder(trainer)
        # First of all: last.ckpt may be damaged, and the disk full. And never without best.ckpt, whose score it tells.
        if not is_best:
            trainer.save_checkpoint(folder / NEXT)
        elif trainer.is_global_zero:
            duplicate_checkpoint(folder / BEST, folder / NEXT)
        if trainer.is_global_zero:
            if (folder / LAST).exists():
                rename_checkpoint(folder / LAST, folder / PREVIOUS)
            rename_checkpoint(folder / NEXT, folder / LAST)

    def _keep_epoch(self, trainer: Trainer) -> None:
        folder = checkpoints_folder(trainer)
        duplicate_checkpoint(folder / LAST, folder / EPOCH.format(trainer.current_epoch + 1))
        kept = sorted(folder.glob(EPOCH.replace("{:05d}", "*")), reverse=True)
        sizes = list(itertools.accumulate(path.stat().st_size for path in kept))
        for place, (path, size) in enumerate(zip(kept, sizes, strict=True)):
            too_many = self.keep_epochs is not None and place >= self.keep_epochs
            too_large = self.keep_gigabytes is not None and size > self.keep_gigabytes * 1e9
            if place > 0 and (too_many or too_large):
                remove_checkpoint(path)

    def _saved(self, trainer: Trainer, save: Callable[[], None]) -> bool:
        """Save, and say whether that worked."""
        try:
            if not checkpoints_folder(
                trainer
            ).is_dir():  # a save would make it anew, without the rest of the run
                raise CheckpointNotSavedError(
                    f"{checkpoints_folder(trainer)} is gone, so nothing was saved"
                )
            save()
        except OSError as error:
            self._failed = error
            if self.on_save_error == "stop":
                raise
            logger.error("{}; training goes on", error)
            return False
        return True

    def _copy(self, trainer: Trainer, name: str) -> None:
        if self._remote is not None and trainer.is_global_zero:
            self._remote.take(
                checkpoints_folder(trainer) / name, Path(trainer.default_root_dir).name
            )

    def _monitored(self, trainer: Trainer) -> float:
        if self.monitor not in trainer.callback_metrics:
            raise ValueError(
                f"monitor {self.monitor!r} is not logged; logged are {', '.join(sorted(trainer.callback_metrics))}"
            )
        return float(trainer.callback_metrics[self.monitor])

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best_score is None:
            return True
        return value > self.best_score if self.mode == "max" else value < self.best_score


def checkpoints_folder(trainer: Trainer) -> Path:
    """Return where a run's checkpoints lie."""
    return Path(trainer.default_root_dir) / "checkpoints"


class _Remote:
    """A folder elsewhere, by fsspec: a bucket, or a mounted one, where a file cannot be renamed."""

    def __init__(self, url: str) -> None:
        try:
            self._files, self._root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"copy_to {url!r}: {error}") from error
        self._url = url

    def take(self, checkpoint: Path, run: str) -> None:
        """Copy a checkpoint and its checksum; log what goes wrong."""
        folder = f"{self._root.rstrip('/')}/{run}/checkpoints"
        try:
            self._files.makedirs(folder, exist_ok=True)
            checksum = checkpoint.with_name(f"{checkpoint.name}.sha256")
            if self._files.exists(f"{folder}/{checksum.name}"):
                self._files.rm_file(f"{folder}/{checksum.name}")  # it is not that of what comes
            for path in (checkpoint, checksum):
                if path.exists():
                    self._files.put_file(str(path), f"{folder}/{path.name}")
        except Exception as error:  # each kind of storage fails in a way of its own
            logger.warning(
                "{} could not be copied to {} ({}); training goes on", checkpoint, self._url, error
            )


def can_go_on_behind(trainer: Trainer, batch_idx: int) -> bool:
    """Say whether a training goes on exactly from a checkpoint that is saved at the end of this training batch.

    It does not where gradients are being accumulated, which no checkpoint holds; nor where a validation or the epoch's
    end follows, which Lightning would skip in the run that goes on (lightning 2.6.6).
    """
    every = trainer.val_check_batch
    across_epochs = trainer.check_val_every_n_epoch is None
    counted = trainer.fit_loop.epoch_loop.total_batch_idx if across_epochs else batch_idx
    validates = isinstance(every, int) and (counted + 1) % every == 0
    return not (trainer.is_last_batch or validates or accumulates(trainer, batch_idx))


def accumulates(trainer: Trainer, batch_idx: int) -> bool:
    """Say whether gradients of this training batch, the epoch's `batch_idx`-th, wait for those of the next."""
    return not trainer.is_last_batch and (batch_idx + 1) % trainer.accumulate_grad_batches != 0
