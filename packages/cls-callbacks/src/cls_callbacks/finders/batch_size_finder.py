"""Which batch size this device trains fastest with, and which no longer fits."""

import statistics
import time

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from loguru import logger

from cls_callbacks.datamodule_access import get_datamodule

_OPTIMIZER_STATES = 2
"""Tensors that an optimizer such as AdamW keeps beside each weight, for which memory has to be left."""

_ENOUGH = 0.95
"""Share of the highest speed with which a smaller batch is suggested: small batches leave more steps."""


class FastestBatchSizeFinder(Callback):
    """Before a new run's first step, times steps on random images with batches of 8, 16, 32 …; logs what it found.

    It suggests the smallest batch that reaches 95 % of the highest images/s, and says which no longer fits into memory.
    It sets nothing: a batch size belongs to a learning rate. The training that follows is the one that would have been
    without it, to the bit. Lightning's FastestBatchSizeFinder looks for the largest that fits, which is seldom what trains
    best, and needs a data module whose batch size can be changed while a schedule is built on it.

    Args:
        largest: batch to try; more than the training split has rows is never tried.
        steps: timed at each size, behind one that warms up.
    """

    def __init__(self, largest: int = 1024, steps: int = 3) -> None:
        for name, value in (("largest", largest), ("steps", steps)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}")
        self.largest = largest
        self.steps = steps
        self.images_per_second: dict[int, float] = {}
        """By batch size, as far as they fit."""
        self.suggestion: int | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time, and suggest."""
        if trainer.ckpt_path is not None:
            return
        data = get_datamodule(trainer)
        self.images_per_second = {}
        too_large = None
        kept = [buffer.clone() for buffer in pl_module.buffers()]
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            size = 8
            while size <= min(self.largest, len(data.records("train"))) and too_large is None:
                try:
                    self.images_per_second[size] = size / self._seconds(
                        trainer, pl_module, (size, 3, *data.preprocessing.size)
                    )
                except RuntimeError as error:
                    if not is_oom_error(error):
                        raise
                    too_large = size
                pl_module.zero_grad()
                garbage_collection_cuda()
                size *= 2
        with torch.no_grad():
            for buffer, before in zip(pl_module.buffers(), kept, strict=True):
                buffer.copy_(before)
        self._say(too_large)

    def _seconds(
        self, trainer: Trainer, module: LightningModule, shape: tuple[int, int, int, int]
    ) -> float:
        images = torch.randn(shape, device=module.device)
        # What the optimizer will hold: it has nothing yet.
        states = [
            torch.empty_like(each)
            for each in module.parameters()
            if each.requires_grad
            for _ in range(_OPTIMIZER_STATES)
        ]
        seconds = []
        for _ in range(1 + self.steps):
            started = time.perf_counter()
            module.zero_grad()
            with trainer.precision_plugin.forward_context():
                module(images).float().square().mean().backward()
            if module.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        del states
        return statistics.median(seconds[1:])

    def _say(self, too_large: int | None) -> None:
        found = ", ".join(f"{size}: {speed:.0f}" for size, speed in self.images_per_second.items())
        if not self.images_per_second:
            logger.warning(
                "batch sizes: nothing to suggest; {}",
                f"{too_large} does not fit" if too_large else "no rows",
            )
            return
        fastest = max(self.images_per_second.values())
        self.suggestion = min(
            size for size, speed in self.images_per_second.items() if speed >= _ENOUGH * fastest
        )
        logger.info(
            "batch sizes: {} is the smallest that trains at full speed (images/s {}{}); what is set stays",
            self.suggestion,
            found,
            f", {too_large} does not fit" if too_large else "",
        )
