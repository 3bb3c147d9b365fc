"""Measure training throughput, and how long training waits for data."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class ImageThroughputMonitor(Callback):
    """Log the throughput of each epoch.

    images_per_second counts the images of all ranks. data_wait is the share of the time, 0 to 1,
    that passes between the end of one step and the start of the next, while the host waits for the
    next batch. gpu_memory_gb, only on CUDA devices, is the peak memory of tensors in the epoch.
    A validation at the end of the epoch is not part of the time; one in the middle is.

    Attributes:
        images: Images of all completed epochs, also after resuming in the middle of one.
        seconds: Training time of these images.
    """

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0
        self._epoch_images = 0
        self._epoch_started = 0.0
        self._batch_ended = 0.0
        self._validation_ended = 0.0
        self._waited = 0.0
        self._resumed_epoch: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; a run that resumes in the middle of an epoch adds to its counts."""
        self._start_epoch()
        self._epoch_images = self._resumed_epoch.get("images", 0)
        self._epoch_started -= self._resumed_epoch.get("seconds", 0.0)
        self._waited = self._resumed_epoch.get("waited", 0.0)
        self._resumed_epoch = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start_epoch()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Add the time since the last batch, or since a validation after it."""
        started_waiting = max(self._batch_ended, self._validation_ended)
        self._waited += time.perf_counter() - started_waiting

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record when the validation ended."""
        self._validation_ended = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images. The epoch's time ends with its last batch, before the validation."""
        images_per_rank = len(batch["labels"])
        self._epoch_images += images_per_rank * trainer.world_size
        self._batch_ended = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics."""
        seconds = self._batch_ended - self._epoch_started
        self.images += self._epoch_images
        self.seconds += seconds

        if seconds > 0:
            pl_module.log("images_per_second", self._epoch_images / seconds)
            pl_module.log("data_wait", self._waited / seconds)

        if pl_module.device.type == "cuda":
            peak_bytes = torch.cuda.max_memory_allocated(pl_module.device)
            pl_module.log("gpu_memory_gb", peak_bytes / 1e9)
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        self._start_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Return the totals of the completed epochs and of the current one."""
        epoch = {
            "images": self._epoch_images,
            "seconds": self._batch_ended - self._epoch_started,
            "waited": self._waited,
        }
        return {
            "images": self.images,
            "seconds": self.seconds,
            "epoch": epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the totals."""
        self.images = state_dict["images"]
        self.seconds = state_dict["seconds"]
        self._resumed_epoch = state_dict.get("epoch", {})  # missing in checkpoints of version 0.1

    def _start_epoch(self) -> None:
        self._epoch_images = 0
        self._waited = 0.0
        self._epoch_started = time.perf_counter()
        self._batch_ended = self._epoch_started
        self._validation_ended = self._epoch_started
