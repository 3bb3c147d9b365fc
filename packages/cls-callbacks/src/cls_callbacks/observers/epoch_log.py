"""One line an epoch, for logs that are read later or far away."""

import time

from lightning.pytorch import Callback, LightningModule, Trainer
from loguru import logger

_SHOWN = ("train_loss", "valid_loss", "valid_top1", "valid_macro_f1")


class EpochLog(Callback):
    """Logs epoch, losses, scores and seconds."""

    def __init__(self) -> None:
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock where a run goes on in the middle of an epoch."""
        self._started = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log."""
        if trainer.is_global_zero:
            values = [
                f"{name} {float(trainer.callback_metrics[name]):.4f}"
                for name in _SHOWN
                if name in trainer.callback_metrics
            ]
            seconds = time.perf_counter() - self._started
            logger.info(
                "epoch {}/{}: {}, {:.1f} s",
                trainer.current_epoch + 1,
                trainer.max_epochs,
                ", ".join(values),
                seconds,
            )
