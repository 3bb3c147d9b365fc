"""Find the batch size that trains fastest."""

import statistics
import time

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from loguru import logger

from cls_callbacks.trainer_access import get_datamodule

_MIN_BATCH_SIZE = 8

_OPTIMIZER_TENSORS = 2
"""Tensors per weight to reserve memory for; AdamW keeps two."""

_MIN_SPEED_RATIO = 0.95
"""The smallest batch with this share of the highest speed is suggested: it leaves more steps."""


class FastestBatchSizeFinder(Callback):
    """Before the first step of a new run, suggest the fastest batch size, without setting it.

    It times steps on batches of 8, 16, 32, ... random images. It suggests the smallest batch that
    reaches 95% of the highest images/s, and reports the size that no longer fits into memory. It
    sets nothing, because a batch size belongs with a learning rate. The weights of the training
    that follows stay bit-identical.

    Lightning's `BatchSizeFinder` searches for the largest batch that fits, which is rarely the
    best, and it needs a data module whose batch size can change after a schedule was built on it.

    Args:
        max_batch_size: Largest batch to try; never more than the training split has rows.
        steps: Steps to time per size, after one warm-up step.

    Attributes:
        images_per_second: Speed by batch size, for the sizes that fit.
        suggestion: The suggested batch size; None if no size fits.
    """

    def __init__(self, max_batch_size: int = 1024, steps: int = 3) -> None:
        if max_batch_size < 1:
            raise ValueError(f"max_batch_size must be at least 1, got {max_batch_size}")

        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")

        self.max_batch_size = max_batch_size
        self.steps = steps
        self.images_per_second: dict[int, float] = {}
        self.suggestion: int | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time the sizes, and log a suggestion; do nothing when a run resumes."""
        if trainer.ckpt_path is not None:
            return

        data = get_datamodule(trainer)
        max_size = min(self.max_batch_size, len(data.records("train")))
        height, width = data.preprocessing.size
        buffers = [buffer.clone() for buffer in pl_module.buffers()]
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []

        self.images_per_second = {}
        size = _MIN_BATCH_SIZE
        fits = True

        with torch.random.fork_rng(devices=devices):
            while fits and size <= max_size:
                try:
                    seconds = self._time_step(trainer, pl_module, (size, 3, height, width))
                    self.images_per_second[size] = size / seconds
                except RuntimeError as error:
                    if not is_oom_error(error):
                        raise
                    fits = False
                pl_module.zero_grad()
                garbage_collection_cuda()
                if fits:
                    size *= 2

        with torch.no_grad():
            for buffer, original in zip(pl_module.buffers(), buffers, strict=True):
                buffer.copy_(original)

        self._log_suggestion(too_large=None if fits else size)

    def _time_step(
        self, trainer: Trainer, module: LightningModule, shape: tuple[int, int, int, int]
    ) -> float:
        """Return the median seconds of a forward and backward pass."""
        images = torch.randn(shape, device=module.device)

        # The optimizer has no state before the first step, so reserve its memory here.
        reserved = []
        for parameter in module.parameters():
            if parameter.requires_grad:
                for _ in range(_OPTIMIZER_TENSORS):
                    reserved.append(torch.empty_like(parameter))

        seconds = []
        for _ in range(1 + self.steps):
            started = time.perf_counter()
            module.zero_grad()
            with trainer.precision_plugin.forward_context():
                module(images).float().square().mean().backward()
            if module.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)

        del reserved
        return statistics.median(seconds[1:])

    def _log_suggestion(self, too_large: int | None) -> None:
        speeds = self.images_per_second
        too_large_note = f"{too_large} does not fit into memory" if too_large else ""

        if not speeds:
            reason = too_large_note or f"the training split has fewer than {_MIN_BATCH_SIZE} rows"
            logger.warning("batch size finder: no suggestion; {}", reason)
            return

        min_speed = _MIN_SPEED_RATIO * max(speeds.values())
        self.suggestion = min(size for size, speed in speeds.items() if speed >= min_speed)
        notes = [f"{size}: {speed:.0f}" for size, speed in speeds.items()]
        if too_large_note:
            notes.append(too_large_note)
        logger.info(
            "batch size finder: {} is the smallest batch at full speed (images/s {}). "
            "data.batch_size is unchanged.",
            self.suggestion,
            ", ".join(notes),
        )
