"""Lightning's progress bar, with epochs counted as the log counts them, and at little cost."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Shows the epoch, the validation's metrics and the time; counts epochs from 1.

    Lightning's own reads every shown metric after every step, for which the host waits for the device, and is drawn
    up to a hundred times a second by a thread that the training step has to wait for (lightning 2.6.6). Here metrics
    are read when they change, which is after a validation.

    Args:
        refresh_rate: how often it is drawn at most, times a second; 0 for never.
    """

    def __init__(self, refresh_rate: int = 4) -> None:
        super().__init__(refresh_rate=refresh_rate)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar on."""
        if (
            self.is_enabled and self.train_progress_bar_id is None
        ):  # where a run goes on in the middle of an epoch
            self._initialize_train_progress_bar_id()
        self._update(self.train_progress_bar_id, batch_idx + 1)

    def _get_train_description(self, current_epoch: int) -> str:
        of = "" if self.trainer.max_epochs in (None, -1) else f"/{self.trainer.max_epochs}"
        # As long as "Validation": the bar flickers when its descriptions differ in length.
        return f"Epoch {current_epoch + 1}{of}".ljust(len(self.validation_description))
