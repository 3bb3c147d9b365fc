"""Log the gradient norm, and warn about float16 overflow."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from loguru import logger
from torch.optim import Optimizer

_MIN_LOSS_SCALE = 1.0
"""Each overflow halves the loss scale. Below 1 it makes gradients smaller than they are."""


class GradientNormMonitor(Callback):
    """Log grad_norm, the 2-norm of all gradients before clipping, at the steps that are logged.

    In float16 training, warn once when the loss scale falls below 1; after that, soon every step
    would be skipped.
    """

    def __init__(self) -> None:
        self._has_warned = False

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Log the norm; it stays on the device until a logger reads it."""
        interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # not declared
        if not interval or (trainer.global_step + 1) % interval != 0:
            return

        gradients = []
        for parameter in pl_module.parameters():
            if parameter.grad is not None:
                gradients.append(parameter.grad)

        pl_module.log("grad_norm", torch.nn.utils.get_total_norm(gradients))

        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            self._check_loss_scale(scaler, trainer)

    def _check_loss_scale(self, scaler: Any, trainer: Trainer) -> None:
        if self._has_warned:
            return
        scale = scaler.get_scale()
        if scale >= _MIN_LOSS_SCALE:
            return
        self._has_warned = True
        logger.warning(
            "The float16 loss scale has fallen to {:.2g} by step {}: gradients overflow repeatedly."
            " Lower the learning rate, clip gradients, or set precision to bf16-mixed or 32-true.",
            scale,
            trainer.global_step,
        )
