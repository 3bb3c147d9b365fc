"""Log one line per epoch, and the position in long ones."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from loguru import logger

_METRICS = ("train_loss", "valid_loss", "valid_top1", "valid_macro_f1")


class EpochSummary(Callback):
    """Log losses, scores, and seconds of each epoch in one line.

    Args:
        every_seconds: In long epochs, also log the number of the batch, at most this often. A log
            file and the log of a cloud job have no progress bar.
    """

    def __init__(self, every_seconds: float = 60) -> None:
        self.every_seconds = every_seconds
        self._started = 0.0
        self._logged = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where a resumed training goes on, and start the clock, as it may be mid-epoch."""
        self._start_clock()
        if trainer.global_step > 0 and trainer.is_global_zero:
            logger.info(
                "resuming after step {:,}, in epoch {}/{}",
                trainer.global_step,
                trainer.current_epoch + 1,
                trainer.max_epochs,
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start_clock()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the position if nothing was logged for a while."""
        now = time.perf_counter()
        if now - self._logged < self.every_seconds or trainer.is_last_batch:
            return
        self._logged = now
        if trainer.is_global_zero:
            logger.info(
                "epoch {}/{}: {:,} of {:,} batches after {:.0f} s",
                trainer.current_epoch + 1,
                trainer.max_epochs,
                batch_idx + 1,
                trainer.num_training_batches,
                now - self._started,
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the line."""
        if not trainer.is_global_zero:
            return
        values = []
        for name in _METRICS:
            if name in trainer.callback_metrics:
                values.append(f"{name} {float(trainer.callback_metrics[name]):.4f}")
        logger.info(
            "epoch {}/{}: {}, {:.1f} s",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            ", ".join(values),
            time.perf_counter() - self._started,
        )

    def _start_clock(self) -> None:
        self._started = time.perf_counter()
        self._logged = self._started
