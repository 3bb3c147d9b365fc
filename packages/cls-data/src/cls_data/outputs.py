"""What an evaluation leaves behind: logits, gathered once, for whoever wants them."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cls_data.files import write_atomically


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


@dataclass(frozen=True, slots=True)
class Predictions:
    """A predictions file: compressed numpy arrays, readable without PyTorch and without pickle.

    Attributes:
        ids: str [N], path of each image relative to the data root.
        labels: int64 [N], class indices; what the annotations say.
        logits: float32 [N, C].
        classes: str [C], names in index order.
    """

    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    classes: NDArray[np.str_]

    @classmethod
    def of(cls, outputs: EvaluationOutputs, ids: Sequence[str], classes: Sequence[str]) -> Self:
        """Join gathered outputs with the ids of the split's rows."""
        return cls(
            ids=np.array([ids[row] for row in outputs.index.tolist()], dtype=np.str_),
            labels=outputs.labels.numpy(),
            logits=outputs.logits.numpy(),
            classes=np.array(classes, dtype=np.str_),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file; a reader sees it whole or not at all."""
        stream = io.BytesIO()
        np.savez_compressed(stream, ids=self.ids, labels=self.labels, logits=self.logits, classes=self.classes)
        write_atomically(path, stream.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read the file."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["ids"], arrays["labels"], arrays["logits"], arrays["classes"])
