"""Save the best and the latest checkpoint, each with the score of its weights."""

import math
import time
from collections.abc import Callable
from typing import Any, Literal, TypedDict

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from loguru import logger

from cls_callbacks.checkpointing.atomic_io import CheckpointNotSavedError
from cls_callbacks.checkpointing.checkpoint_capture import capture_checkpoint
from cls_callbacks.checkpointing.checkpoint_copies import CheckpointCopier
from cls_callbacks.checkpointing.rank_agreement import RankAgreement
from cls_callbacks.checkpointing.resume_points import can_resume_after_batch, is_out_of_time
from cls_callbacks.checkpointing.save_job import SavedFile, SaveJob, SavePlan
from cls_callbacks.trainer_access import get_run_paths
from cls_export.contract.suggestions import did_you_mean


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

    An asynchronous save copies the checkpoint to host memory and writes it from a thread, one at a
    time. The next validation and the next save wait for it, and so do the end of training, an
    error in training, and `PreemptionCheckpoint`. Errors of the thread are raised there, too.

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
        asynchronous: Whether training goes on while files are written, which takes host memory of
            the size of a checkpoint. `auto` does this on a CUDA device. On a CPU, writing would
            take time from the training steps.

    Attributes:
        metadata: Plain values that each checkpoint stores under `run`, such as the configuration.
        best_score: The best value of the metric so far; None before the first validation.
        on_saved: Called on the first rank, in the thread of the training, with the number of
            optimizer steps, when files in `checkpoints/` have changed. They do not change during
            the call.
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
        asynchronous: bool | Literal["auto"] = "auto",
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
        if on_save_error not in ("stop", "continue"):
            raise ValueError(f"on_save_error must be 'stop' or 'continue', got {on_save_error!r}")
        if asynchronous not in (True, False, "auto"):
            raise ValueError(f"asynchronous must be true, false, or 'auto', got {asynchronous!r}")

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
        self.asynchronous = asynchronous
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
        self._job: SaveJob | None = None
        self._copier: CheckpointCopier | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the clock, and create the folder."""
        self._saved_at = time.monotonic()
        self._saved_step = trainer.global_step
        self._save_error = None
        self._is_last_missing = False
        self._is_best_pending = False
        self._agreement = RankAgreement(trainer)
        self._job = None
        self._copier = CheckpointCopier() if self._is_asynchronous(trainer) else None
        if trainer.is_global_zero:
            get_run_paths(trainer).checkpoints.mkdir(parents=True, exist_ok=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save last.ckpt if it is due and training can resume from here."""
        self._report_save(trainer)
        if self._is_due(trainer) and can_resume_after_batch(trainer, batch_idx):
            self.save_last(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Report a save that has ended in the meantime."""
        self._report_save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save best.ckpt if this score is the best.

        At the end of an epoch, defer to `on_train_epoch_end`.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self.finish_save(trainer)  # best_score must be the one on disk
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
        if not trainer.is_last_batch:
            self._save(trainer, "best")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save last.ckpt.

        Also save a checkpoint of this epoch if `keep_epochs` or `keep_gigabytes` is set.
        """
        if self.keep_epochs is None and self.keep_gigabytes is None:
            self.save_last(trainer)
        else:
            self._save(trainer, "last", "epoch")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise an earlier save error if it left the run without best.ckpt or last.ckpt."""
        self.finish_save(trainer)
        self._copier = None
        if self._save_error is None:
            return

        error: OSError | None = None
        if self._is_last_missing or not get_run_paths(trainer).best.exists():
            error = self._save_error
        error = self._agree_on_error(error)
        if error is not None:
            raise error

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Wait until the files are on disk. Errors of saves cannot replace this exception."""
        self._copier = None
        if self._job is None:
            return
        self._job.wait()
        for error in (*self._job.errors.values(), self._job.failure):
            if error not in (None, exception):
                logger.error("{}", error)
        try:
            self._report_save(trainer)
        except Exception as error:  # perhaps this is why training ends
            logger.warning("{}", error)
        self._job = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the metadata, whether training stops here, and the score of these weights."""
        checkpoint["run"] = self.metadata
        checkpoint["should_stop"] = trainer.should_stop and not is_out_of_time(trainer)
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
        """Save last.ckpt and a pending best.ckpt; the older last.ckpt becomes previous.ckpt.

        If saves are asynchronous, `finish_save` waits for this one.
        """
        self._save(trainer, "last")

    def finish_save(self, trainer: Trainer) -> None:
        """Wait until the files of the latest save are on disk. All ranks must call this.

        Raises:
            OSError: They could not be written, and `on_save_error` is `stop`.
        """
        job = self._job
        if job is None:
            return
        job.wait()
        if job.failure is not None:
            raise job.failure
        errors = {name: self._agree_on_error(job.errors.get(name)) for name in job.plan.files}
        if errors.get("best") is not None:
            self.best_score = self._best_score_on_disk
        if "last" in errors:
            self._is_last_missing = errors["last"] is not None
        self._report_save(trainer)
        self._job = None

        for error in errors.values():
            if error is None:
                continue
            self._save_error = error
            if self.on_save_error == "stop":
                raise error
            logger.error("{}. Training continues.", error)

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

    def _save(self, trainer: Trainer, *files: SavedFile) -> None:
        """Start to write files and a pending best.ckpt, and finish unless it is asynchronous."""
        self.finish_save(trainer)
        if self._is_best_pending and "best" not in files:
            files = ("best", *files)
        self._is_best_pending = False
        if "last" in files:
            self._saved_at = time.monotonic()
            self._saved_step = trainer.global_step

        job = SaveJob(self._plan(trainer, files))
        try:
            checkpoint = capture_checkpoint(trainer)
        except OSError as error:
            if trainer.world_size > 1:  # the others do not know, and wait for this checkpoint
                raise
            job.fail(error)
        else:
            if checkpoint is not None:
                self._write(trainer, job, checkpoint)
        self._job = job
        if self._copier is None:
            self.finish_save(trainer)

    def _plan(self, trainer: Trainer, files: tuple[SavedFile, ...]) -> SavePlan:
        return SavePlan(
            run=get_run_paths(trainer),
            step=trainer.global_step,
            files=files,
            epoch=trainer.current_epoch + 1,
            keep_epochs=math.inf if self.keep_epochs is None else self.keep_epochs,
            max_bytes=math.inf if self.keep_gigabytes is None else self.keep_gigabytes * 1e9,
            stops_at_error=self.on_save_error == "stop",
            state_key=self.state_key,
            older_best_score=self._best_score_on_disk,
        )

    def _write(self, trainer: Trainer, job: SaveJob, checkpoint: dict[str, Any]) -> None:
        """Write a checkpoint now, or copy it and start to write the copy."""
        checkpoint_io = trainer.strategy.checkpoint_io
        if self._copier is None:
            job.run(checkpoint, checkpoint_io)
        else:
            job.start(self._copier.copy(checkpoint).load, checkpoint_io)

    def _is_asynchronous(self, trainer: Trainer) -> bool:
        if self.asynchronous == "auto":
            return trainer.strategy.root_device.type == "cuda"
        return self.asynchronous

    def _agree_on_error(self, error: OSError | None) -> OSError | None:
        """Return the error of the first rank, which writes the files; None without one."""
        assert self._agreement is not None
        message = self._agreement.share_message(None if error is None else str(error))
        if message is None or self._agreement.is_first:
            return error
        return CheckpointNotSavedError(message)

    def _report_save(self, trainer: Trainer) -> None:
        """Call `on_saved`, once for each save, if its files are on disk."""
        job = self._job
        if job is None or job.is_reported or not job.has_saved:
            return
        job.is_reported = True
        if self.on_saved is not None and trainer.is_global_zero:
            self.on_saved(job.plan.step)

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


def _check_positive(name: str, value: float | None) -> None:
    if value is not None and value <= 0:
        raise ValueError(f"{name} must be above 0, or null to turn it off, got {value}")
