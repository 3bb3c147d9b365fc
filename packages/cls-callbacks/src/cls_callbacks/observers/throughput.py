"""How many images training takes in a second, and what keeps it from more."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Logs images_per_second of each epoch's training part, all ranks together, data_wait and gpu_memory_gb.

    data_wait is the share of that time between a step's end and the next one's beginning, in which the host waits for
    the next batch: 0 to 1. gpu_memory_gb, on a CUDA device alone, is the most that tensors took in the epoch.

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
        self._waited = 0.0
        self._validated = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock where a run goes on in the middle of an epoch, of which the rest is measured."""
        self._start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count how long the batch was waited for. A validation in the epoch's middle is no such wait."""
        self._waited += time.perf_counter() - max(self._latest, self._validated)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note when a validation ended."""
        self._validated = time.perf_counter()

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
            pl_module.log("data_wait", self._waited / seconds)
        if pl_module.device.type == "cuda":
            pl_module.log("gpu_memory_gb", torch.cuda.max_memory_allocated(pl_module.device) / 1e9)
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def _start(self) -> None:
        self._epoch_images = 0
        self._waited = 0.0
        self._started = self._latest = self._validated = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far."""
        return {"images": self.images, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the sums so far."""
        self.images, self.seconds = state_dict["images"], state_dict["seconds"]
