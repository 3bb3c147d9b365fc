"""What a data set holds: counts, imbalance, image sizes."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cls_data.annotations import Record


class SizeRange(BaseModel):
    """Smallest, median and largest width and height of the image files of a split, in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: tuple[int, float, int]
    height: tuple[int, float, int]


class DatasetStatistics(BaseModel):
    """Counts and sizes, for every split that there is.

    Attributes:
        classes: class names in index order.
        counts: rows of each class by split, in index order, zeros included.
        sizes: image sizes by split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    sizes: dict[str, SizeRange]

    @classmethod
    def of(cls, classes: Sequence[str], splits: Mapping[str, tuple[Sequence[Record], NDArray[np.int64]]]) -> Self:
        """Count the records of each split; the arrays hold width and height, int64 [N, 2]."""
        return cls(
            classes=tuple(classes),
            counts={split: _count(records, classes) for split, (records, _) in splits.items()},
            sizes={split: _range(sizes) for split, (_, sizes) in splits.items()},
        )

    def total(self, split: str) -> int:
        """Rows of a split."""
        return sum(self.counts[split].values())

    @property
    def imbalance_ratio(self) -> float:
        """Rows of the largest training class over those of the smallest."""
        train = self.counts["train"].values()
        return max(train) / min(train)

    def missing(self, split: str) -> tuple[str, ...]:
        """Classes without a row in a split."""
        return tuple(name for name, count in self.counts[split].items() if count == 0)


def _count(records: Sequence[Record], classes: Sequence[str]) -> dict[str, int]:
    counts = dict.fromkeys(classes, 0)
    for record in records:
        counts[record.label] += 1
    return counts


def _range(sizes: NDArray[np.int64]) -> SizeRange:
    low, middle, high = sizes.min(axis=0), np.median(sizes, axis=0), sizes.max(axis=0)
    width, height = ((int(low[axis]), float(middle[axis]), int(high[axis])) for axis in (0, 1))
    return SizeRange(width=width, height=height)
