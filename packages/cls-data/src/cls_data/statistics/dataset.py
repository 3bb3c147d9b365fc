"""What a data set holds: counts, imbalance, image sizes."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from pydantic import BaseModel, ConfigDict

from cls_data.annotations.classes import class_to_idx, label_indices
from cls_data.annotations.quarantine import Quarantine
from cls_data.annotations.reading import SPLITS, Record, read_split
from cls_data.errors import DataError

_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


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
    def of(
        cls,
        classes: Sequence[str],
        splits: Mapping[str, tuple[Sequence[Record], NDArray[np.int64]]],
    ) -> Self:
        """Count the records of each split; the arrays hold width and height, int64 [N, 2]."""
        return cls(
            classes=tuple(classes),
            counts={split: _count(records, classes) for split, (records, _) in splits.items()},
            sizes={split: _range(sizes) for split, (_, sizes) in splits.items()},
        )

    @classmethod
    def read(
        cls,
        root: str | os.PathLike[str],
        *,
        annotations: str = "",
        quarantine: Quarantine | None = None,
    ) -> Self:
        """Count and measure a data set on disk, without decoding it.

        Args:
            root: the data root.
            annotations: as for `read_split`.
            quarantine: rows to leave out.

        Raises:
            DataError: there is no training split; or rows, labels or image headers are not as they should be.
        """
        every = {
            split: read_split(root, split, annotations=annotations, quarantine=quarantine)
            for split in SPLITS
        }
        records = {split: found for split, found in every.items() if found}
        if "train" not in records:
            raise DataError(f"{root}: no training rows; the classes are those that train/ holds")
        indices = class_to_idx(records["train"])
        for rows in records.values():
            label_indices(rows, indices)
        return cls.of(
            tuple(indices), {split: (rows, image_sizes(rows)) for split, rows in records.items()}
        )

    def total(self, split: str) -> int:
        """Rows of a split."""
        return sum(self.counts[split].values())

    @property
    def imbalance_ratio(self) -> float:
        """Rows of the largest training class over those of the smallest; infinite where one has no row."""
        train = self.counts["train"].values()
        return max(train) / min(train) if min(train) else math.inf

    def missing(self, split: str) -> tuple[str, ...]:
        """Classes without a row in a split."""
        return tuple(name for name, count in self.counts[split].items() if count == 0)


def image_sizes(records: Sequence[Record]) -> NDArray[np.int64]:
    """Read width and height of some images, upright, from the files' headers alone: int64 [N, 2].

    Raises:
        DataError: files whose header cannot be read; all of them are named by file and line.
    """
    found = [_size(record) for record in records]
    if findings := [size for size in found if isinstance(size, str)]:
        raise DataError.from_findings(
            f"{len(findings)} image(s) cannot be read",
            findings,
            "Replace the files, or remove their rows.",
        )
    return np.array(found, np.int64).reshape(-1, 2)


def _size(record: Record) -> tuple[int, int] | str:
    # Pillow reports a damaged file by nearly any exception, from SyntaxError to struct.error, by its format.
    try:
        with Image.open(record.path) as image:
            # Without the chunk in front, Pillow would decode the whole PNG in search of one behind the pixels.
            searched = image.format != "PNG" or "exif" in image.info
            sideways = searched and image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
            return (image.height, image.width) if sideways else image.size
    except Exception as error:
        return f"{record.source}: {record.id}: {error}"


def _count(records: Sequence[Record], classes: Sequence[str]) -> dict[str, int]:
    counts = dict.fromkeys(classes, 0)
    for record in records:
        counts[record.label] += 1
    return counts


def _range(sizes: NDArray[np.int64]) -> SizeRange:
    low, middle, high = sizes.min(axis=0), np.median(sizes, axis=0), sizes.max(axis=0)
    width, height = ((int(low[axis]), float(middle[axis]), int(high[axis])) for axis in (0, 1))
    return SizeRange(width=width, height=height)
