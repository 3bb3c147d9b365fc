"""How many images training takes in a second."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Logs images_per_second of each epoch's training part, all ranks together.

    A validation at the epoch's end is not counted, one in its middle is.
    `images` and `seconds` sum up the whole run, through checkpoints too, but for the beginning of an epoch in whose
    middle it was interrupted.
    """

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0
        self._epoch_images = 0
        self._started = 0.0
        self._latest = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock where a run goes on in the middle of an epoch, of which the rest is measured."""
        self._start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count. The clock of the last batch counts, so that the validation behind it does not."""
        self._epoch_images += len(batch["labels"]) * trainer.world_size
        self._latest = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log."""
        seconds = self._latest - self._started
        self.images += self._epoch_images
        self.seconds += seconds
        if seconds > 0:
            pl_module.log("images_per_second", self._epoch_images / seconds)

    def _start(self) -> None:
        self._epoch_images = 0
        self._started = self._latest = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far."""
        return {"images": self.images, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the sums so far."""
        self.images, self.seconds = state_dict["images"], state_dict["seconds"]
