"""Detect non-finite losses without waiting for the device at every step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from cls_data import ClassificationDataModule

_MAX_PATHS = 5
"""Image paths listed in a message."""


class NonfiniteLossError(ArithmeticError):
    """The loss became infinite or NaN. The message says what to change."""


class NonfiniteBatchTracker:
    """Remember the rows of the first batch whose loss was not finite, on the loss's device.

    Checking each loss on the host would make it wait for the device at every step. The rows stay
    the same tensor, because a CUDA graph writes to it.
    """

    def __init__(self) -> None:
        self._rows: Tensor | None = None

    def reset(self) -> None:
        """Forget the batch, at the start of an epoch."""
        if self._rows is not None:
            self._rows.fill_(-1)

    def update(self, loss: Tensor, rows: Tensor) -> None:
        """Record the rows, int64 [B], if this scalar loss is the first that is not finite."""
        if self._rows is None or self._rows.shape != rows.shape:
            self._rows = torch.full_like(rows, -1)  # all batches of an epoch have the same size
        is_unset = self._rows[0] < 0
        is_first = ~loss.isfinite() & is_unset
        self._rows.copy_(torch.where(is_first, rows, self._rows))

    def rows(self) -> list[int]:
        """Return the recorded rows; empty if all losses were finite."""
        if self._rows is None or int(self._rows[0]) < 0:
            return []
        return self._rows.tolist()

    def rows_of_first_rank(self) -> list[int]:
        """Return the recorded rows of the first rank that has some. All ranks must call this."""
        if not distributed.is_available() or not distributed.is_initialized():
            return self.rows()
        all_rows: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(all_rows, self.rows())
        for rows in all_rows:
            if rows:
                return list(rows)
        return []


def list_image_paths(rows: Sequence[int], data: object) -> str:
    """Return the paths of rows of the training split, for a message; empty if not available."""
    if not rows or not isinstance(data, ClassificationDataModule):
        return ""
    records = data.records("train")
    paths = ", ".join(str(records[row].path) for row in rows[:_MAX_PATHS])
    if len(rows) > _MAX_PATHS:
        paths += f" and {len(rows) - _MAX_PATHS} more"
    return paths
