"""A loss that is infinite or not a number: which images it came with, without a wait at every step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cls_data import ClassificationDataModule

_SHOWN = 5


class NotFiniteLossError(ArithmeticError):
    """The training loss became infinite or not a number. The message says what to change."""


class FirstNotFinite:
    """The rows of the first batch whose loss was not finite, kept where the losses lie.

    To look at every loss would make the host wait for the device at every step.
    """

    def __init__(self) -> None:
        self._rows: Tensor | None = None

    def forget(self) -> None:
        """Begin anew, with the epoch."""
        self._rows = None

    def note(self, loss: Tensor, rows: Tensor) -> None:
        """Keep int64 [B] rows of the training split if this scalar loss is the first that is not finite."""
        if self._rows is None:
            self._rows = torch.full_like(rows, -1)
        if len(rows) == len(self._rows):  # as all of an epoch's batches are
            first = ~loss.isfinite() & (self._rows[0] < 0)
            self._rows = torch.where(first, rows, self._rows)

    def rows(self) -> list[int]:
        """Return them; none while every loss was finite."""
        return [] if self._rows is None or int(self._rows[0]) < 0 else self._rows.tolist()


def named_images(rows: Sequence[int], data: object) -> str:
    """Return a clause that names the images of rows of the training split; nothing where they are not known."""
    if not rows or not isinstance(data, ClassificationDataModule):
        return ""
    records = data.records("train")
    paths = [str(records[row].path) for row in rows[:_SHOWN]]
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return f", first for the batch of {', '.join(paths)}{more}"
