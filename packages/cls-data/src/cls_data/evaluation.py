"""Outputs of an evaluation, and a context manager for evaluation mode."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class EvaluationOutputs:
    """Logits float32 [N, C] and labels int64 [N] of one evaluation of valid or test, on the CPU.

    The rows of the split, int64 [N], are in ascending order.
    """

    split: str
    logits: Tensor
    labels: Tensor
    index: Tensor


@runtime_checkable
class HasEvaluationOutputs(Protocol):
    """A module that holds the outputs of its latest evaluation; None before the first one."""

    outputs: EvaluationOutputs | None


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and restore the mode of every submodule afterwards.

    Frozen submodules may already be in evaluation mode, so `module.train()` would not restore them.
    """
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training
