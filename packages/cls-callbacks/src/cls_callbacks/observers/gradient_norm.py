"""How large gradients are, and whether float16 still holds them."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from loguru import logger
from torch.optim import Optimizer

SMALLEST_SCALE = 1.0
"""A loss scale below this makes gradients smaller than they are: each was halved because of an overflow."""


class GradientNorm(Callback):
    """Logs grad_norm, the 2-norm of all gradients before they are clipped, at the steps that loggers write.

    Under float16 it warns, once, of a loss scale below 1, which comes before a training that skips every step.
    """

    def __init__(self) -> None:
        self._warned = False

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Log. The norm stays on the device until a logger asks for it."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set undeclared
        if not every or (trainer.global_step + 1) % every != 0:
            return
        gradients = [
            parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None
        ]
        pl_module.log("grad_norm", torch.nn.utils.get_total_norm(gradients))
        self._watch(getattr(trainer.precision_plugin, "scaler", None), trainer)

    def _watch(self, scaler: Any, trainer: Trainer) -> None:
        if scaler is None or self._warned or (scale := scaler.get_scale()) >= SMALLEST_SCALE:
            return
        self._warned = True
        logger.warning(
            "the loss scale has fallen to {:.2g} by step {}: gradients overflow float16 again and again; lower the "
            "learning rate, clip gradients, or train in bf16-mixed or 32-true",
            scale,
            trainer.global_step,
        )
