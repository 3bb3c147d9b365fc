"""Measure how much slower a reduced precision is on a CPU."""

import time

import torch
from torch import nn

from cls_models.acceleration.precision import Precision

_IMAGES = 2
_REPEATS = 2
_MAX_SECONDS = 0.5
"""No further repeat is started after this time."""


def measure_slowdown(
    network: nn.Module, image_size: tuple[int, int], precision: Precision
) -> float:
    """Return how many times as long as in float32 a training step takes on the CPU.

    Takes a few forward and backward steps on two images, usually within a second. The network, its
    gradients, and PyTorch's random numbers stay as they are.

    Args:
        network: Maps float32 [B, 3, H, W] to logits; on the CPU.
        image_size: Height and width in pixels.
        precision: The other precision.
    """
    if precision == "32-true":
        return 1.0

    images = torch.zeros(_IMAGES, 3, *image_size)
    parameters = [each for each in network.parameters() if each.requires_grad]
    was_training = network.training
    network.eval()  # so that batch norm keeps its statistics
    seconds: dict[bool, float] = {}
    started = time.perf_counter()
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            for _ in range(1 + _REPEATS):
                for is_reduced in (False, True):
                    step = _time_step(network, images, parameters, is_reduced=is_reduced)
                    seconds[is_reduced] = min(step, seconds.get(is_reduced, step))
                if time.perf_counter() - started > _MAX_SECONDS:
                    break
    finally:
        network.train(was_training)
    return seconds[True] / seconds[False]


def _time_step(
    network: nn.Module, images: torch.Tensor, parameters: list[nn.Parameter], *, is_reduced: bool
) -> float:
    started = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_reduced):
        loss = network(images).float().square().mean()
    torch.autograd.grad(loss, parameters, allow_unused=True)
    return time.perf_counter() - started
