"""What an evaluation leaves behind: logits, gathered once, for whoever wants them."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True, slots=True)
class EvaluationOutputs:
    """Every sample of one evaluation, on the CPU, in row order of its split.

    Attributes:
        split: `valid` or `test`.
        logits: float32 [N, C].
        labels: int64 [N].
        index: int64 [N], rows of the split.
    """

    split: str
    logits: Tensor
    labels: Tensor
    index: Tensor


@runtime_checkable
class GathersOutputs(Protocol):
    """A module that keeps the outputs of its latest evaluation for observers; None before the first."""

    outputs: EvaluationOutputs | None
