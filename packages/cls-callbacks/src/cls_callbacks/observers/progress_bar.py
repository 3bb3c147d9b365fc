"""Progress bar that counts epochs from 1 and does not slow down training."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class EpochProgressBar(RichProgressBar):
    """Show the epoch (counted from 1), the time, and the metrics of the last validation.

    Lightning's own bar reads each displayed metric after every step, which synchronizes with the
    device, and redraws up to 100 times per second in a thread that blocks the training step
    (lightning 2.6.6). This one reads metrics only after a validation.

    Args:
        refresh_rate: Largest number of redraws per second; 0 turns the bar off.
    """

    def __init__(self, refresh_rate: int = 4) -> None:
        super().__init__(refresh_rate=refresh_rate)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar."""
        # A run that resumes in the middle of an epoch has no bar yet.
        if self.is_enabled and self.train_progress_bar_id is None:
            self._initialize_train_progress_bar_id()
        self._update(self.train_progress_bar_id, batch_idx + 1)

    def _stop_progress(self) -> None:
        """Stop the bar without waiting for its thread, which sleeps until the next redraw."""
        live = getattr(self.progress, "live", None)
        thread = getattr(live, "_refresh_thread", None)
        if live is not None and thread is not None:
            thread.stop()
            live._refresh_thread = None
        super()._stop_progress()

    def _get_train_description(self, current_epoch: int) -> str:
        max_epochs = self.trainer.max_epochs
        total = "" if max_epochs in (None, -1) else f"/{max_epochs}"
        # As long as "Validation": the bar flickers when its descriptions differ in length.
        return f"Epoch {current_epoch + 1}{total}".ljust(len(self.validation_description))
