"""Which parameters decay, and how the learning rate moves."""

import math
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Return two groups of the trainable parameters: those that decay, and norms and biases, which do not.

    The first takes the optimiser's own weight_decay, the second sets it to 0.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trainable if parameter.ndim >= 2]},
        {"params": [parameter for parameter in trainable if parameter.ndim < 2], "weight_decay": 0.0},
    ]


def warmup_cosine(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.1, final: float = 0.01) -> LambdaLR:
    """Raise the learning rate linearly, then lower it along half a cosine; step it after every optimiser step.

    Args:
        optimizer: its own learning rate is the peak.
        total_steps: optimiser steps of the whole training.
        warmup: share of the steps that the rise takes, 0 to below 1.
        final: share of the peak that is left at the end.
    """
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is a share of the training steps, 0 to below 1; got {warmup}")
    rise = max(1, round(warmup * total_steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        progress = min(1.0, (step - rise) / max(1, total_steps - rise))
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)
