"""Fused optimizer steps for channels-last weights on a CPU.

Fused kernels process parameter, gradient, and state in memory order, which is right for
channels-last tensors if all three have that layout. There are two traps:

- torch 2.15 first copies every gradient that is not contiguous, and does not use the copy. For a
  ResNet-18 this takes half of the step's time.
- A momentum with another layout, such as one from a GPU run's checkpoint, is added to the wrong
  weights.

During a step, all three are therefore replaced by views whose shape is their memory order.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_TO_MEMORY_ORDER = (0, 2, 3, 1)
_FROM_MEMORY_ORDER = (0, 3, 1, 2)


def patch_channels_last_step(optimizer: Optimizer) -> None:
    """Make an elementwise optimizer update channels-last tensors on a CPU as [O, H, W, I].

    Outside a step, its parameters, gradients, and state are the same as without the patch.
    """
    step: Callable[[Optimizer], Any] = type(optimizer).step

    def patched_step(self: Optimizer, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:  # run it here, because it computes the gradients
            with torch.enable_grad():
                loss = closure()

        with _permute_to_memory_order(self):
            step(self)
        return loss

    optimizer.step = MethodType(patched_step, optimizer)  # type: ignore[method-assign]


@contextmanager
def _permute_to_memory_order(optimizer: Optimizer) -> Iterator[None]:
    permuted = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            is_updated = parameter.grad is not None and parameter.device.type == "cpu"
            if is_updated and _is_channels_last(parameter):
                permuted.append(parameter)
    for parameter in permuted:
        _permute_all(parameter, optimizer, _TO_MEMORY_ORDER)
    try:
        yield
    finally:
        for parameter in permuted:
            _permute_all(parameter, optimizer, _FROM_MEMORY_ORDER)


def _is_channels_last(tensor: Tensor) -> bool:
    return (
        tensor.ndim == 4
        and not tensor.is_contiguous()
        and tensor.is_contiguous(memory_format=torch.channels_last)
    )


def _permute_all(parameter: nn.Parameter, optimizer: Optimizer, order: tuple[int, ...]) -> None:
    """Permute the axes of a parameter, its gradient, and its state."""
    gradient = parameter.grad
    assert gradient is not None
    parameter.grad = None  # the gradient must always have the parameter's shape
    parameter.data = parameter.data.permute(order)
    parameter.grad = _permute(gradient, order)

    state = optimizer.state.get(parameter, {})
    for name, value in state.items():
        if isinstance(value, Tensor) and value.ndim == 4:
            state[name] = _permute(value, order)


def _permute(tensor: Tensor, order: tuple[int, ...]) -> Tensor:
    permuted = tensor.permute(order)
    if order == _TO_MEMORY_ORDER:
        return permuted.contiguous()
    return permuted
