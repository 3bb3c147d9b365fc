"""Outputs of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class EvaluationOutputs:
    """Outputs of one evaluation, all on the CPU.

    Attributes:
        split: `valid` or `test`.
        logits: float32 [N, C].
        labels: int64 [N].
        index: int64 [N], rows of the split, ascending.
    """

    split: str
    logits: Tensor
    labels: Tensor
    index: Tensor


@runtime_checkable
class HasEvaluationOutputs(Protocol):
    """A module that holds the outputs of its latest evaluation; None before the first one."""

    outputs: EvaluationOutputs | None
