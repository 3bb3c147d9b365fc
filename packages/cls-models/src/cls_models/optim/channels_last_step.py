"""Steps of fused optimizers on channels-last weights of a CPU.

The fused kernels go through parameter, gradient and state in the order in which each lies in memory. Of channels-last
tensors that is right if all three lie so, but torch 2.15 copies every gradient that is not contiguous first, and leaves
the copy unused: on ResNet-18 half of the step's time. And a momentum that lies otherwise, since it comes from the
checkpoint of a GPU's run, is added to the wrong weights. For the time of a step each is shown as what it is in memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_TO_MEMORY = (0, 2, 3, 1)
_FROM_MEMORY = (0, 3, 1, 2)


def patch_channels_last_step(optimizer: Optimizer) -> None:
    """Let an optimizer that moves each value by itself see channels-last tensors of a CPU as [O, H, W, I] in its steps.

    Its parameters, gradients and state are before and after each step what they are without.
    """
    step: Callable[[Optimizer], Any] = type(optimizer).step

    def in_order(self: Optimizer, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:  # here, since it computes the gradients
            with torch.enable_grad():
                loss = closure()
        with _shown_in_memory_order(self):
            step(self)
        return loss

    optimizer.step = MethodType(in_order, optimizer)  # type: ignore[method-assign]


@contextmanager
def _shown_in_memory_order(optimizer: Optimizer) -> Iterator[None]:
    turned = [
        parameter
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
        and parameter.device.type == "cpu"
        and _lies_channels_last(parameter)
    ]
    for parameter in turned:
        _turn(parameter, optimizer, _TO_MEMORY)
    try:
        yield
    finally:
        for parameter in turned:
            _turn(parameter, optimizer, _FROM_MEMORY)


def _lies_channels_last(tensor: Tensor) -> bool:
    return (
        tensor.ndim == 4
        and not tensor.is_contiguous()
        and tensor.is_contiguous(memory_format=torch.channels_last)
    )


def _turn(parameter: nn.Parameter, optimizer: Optimizer, order: tuple[int, ...]) -> None:
    """Show a parameter, its gradient and its state with their axes in another order."""
    gradient, parameter.grad = (
        parameter.grad,
        None,
    )  # a gradient has its parameter's shape at any time
    parameter.data = parameter.data.permute(order)
    assert gradient is not None
    parameter.grad = _permuted(gradient, order)
    state = optimizer.state.get(parameter, {})
    for name, value in state.items():
        if isinstance(value, Tensor) and value.ndim == 4:
            state[name] = _permuted(value, order)


def _permuted(tensor: Tensor, order: tuple[int, ...]) -> Tensor:
    permuted = tensor.permute(order)
    return permuted.contiguous() if order == _TO_MEMORY else permuted
