"""Lightning's progress bar, with epochs counted as the log counts them."""

from lightning.pytorch.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Shows the epoch, the monitored metrics and the time; counts epochs from 1."""

    def _get_train_description(self, current_epoch: int) -> str:
        of = "" if self.trainer.max_epochs in (None, -1) else f"/{self.trainer.max_epochs}"
        # As long as "Validation": the bar flickers when its descriptions differ in length.
        return f"Epoch {current_epoch + 1}{of}".ljust(len(self.validation_description))
