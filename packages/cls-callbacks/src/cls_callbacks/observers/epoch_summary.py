"""Log one line per epoch."""

import time

from lightning.pytorch import Callback, LightningModule, Trainer
from loguru import logger

_METRICS = ("train_loss", "valid_loss", "valid_top1", "valid_macro_f1")


class EpochSummary(Callback):
    """Log losses, scores, and seconds of each epoch in one line."""

    def __init__(self) -> None:
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, for a run that resumes in the middle of an epoch."""
        self._started = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

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
