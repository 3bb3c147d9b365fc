"""Class counts, class imbalance, and image sizes of a dataset."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cls_data.annotations.classes import build_class_to_idx, check_labels
from cls_data.annotations.quarantine import Quarantine
from cls_data.annotations.reading import Record
from cls_data.data_source import Layout, read_data
from cls_data.errors import DataError
from cls_export.contract.decoding import read_image_file, read_image_size
from cls_export.contract.errors import ImageError


class SizeRange(BaseModel):
    """Minimum, median, and maximum width and height of a split's image files, in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: tuple[int, float, int]
    height: tuple[int, float, int]

    @classmethod
    def from_sizes(cls, sizes: NDArray[np.int64]) -> Self:
        """Summarize widths and heights: int64 [N, 2], N > 0."""
        minimum = sizes.min(axis=0).tolist()
        median = np.median(sizes, axis=0).tolist()
        maximum = sizes.max(axis=0).tolist()

        width, height = zip(minimum, median, maximum, strict=True)
        return cls(width=width, height=height)


class DatasetStatistics(BaseModel):
    """Class counts and image sizes of each split. Counts are in index order, zeros included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    sizes: dict[str, SizeRange]

    @classmethod
    def from_splits(
        cls,
        classes: Sequence[str],
        splits: Mapping[str, tuple[Sequence[Record], NDArray[np.int64]]],
    ) -> Self:
        """Count the records of each split; the arrays hold width and height, int64 [N, 2]."""
        counts = {}
        size_ranges = {}
        for split, (records, sizes) in splits.items():
            counts[split] = _count_labels(records, classes)
            size_ranges[split] = SizeRange.from_sizes(sizes)
        return cls(classes=tuple(classes), counts=counts, sizes=size_ranges)

    @classmethod
    def read(
        cls,
        root: str | os.PathLike[str],
        *,
        annotations: str = "",
        quarantine: Quarantine | None = None,
        layout: Layout = "auto",
    ) -> Self:
        """Count rows and read image sizes of a dataset on disk, without decoding pixels.

        Raises:
            DataError: The training split is missing, or rows, labels, or image headers are invalid.
        """
        records = read_data(root, layout=layout, annotations=annotations, quarantine=quarantine)
        if "train" not in records:
            raise DataError(
                f"{root}: no training rows. Classes come from the train split: add annotations "
                "to train/."
            )

        indices = build_class_to_idx(records["train"])
        splits: dict[str, tuple[Sequence[Record], NDArray[np.int64]]] = {}
        for split, rows in records.items():
            check_labels(rows, indices)
            splits[split] = (rows, read_image_sizes(rows))
        return cls.from_splits(tuple(indices), splits)

    def total(self, split: str) -> int:
        """Return the number of rows of a split."""
        counts = self.counts[split]
        return sum(counts.values())

    @property
    def imbalance_ratio(self) -> float:
        """Rows of the largest training class over rows of the smallest; inf if that has none."""
        counts = self.counts["train"].values()
        smallest = min(counts)
        if smallest == 0:
            return math.inf

        return max(counts) / smallest

    def missing_classes(self, split: str) -> tuple[str, ...]:
        """Return the classes without a row in a split."""
        missing = []
        for name, count in self.counts[split].items():
            if count == 0:
                missing.append(name)

        return tuple(missing)


def read_image_sizes(records: Sequence[Record]) -> NDArray[np.int64]:
    """Read upright width and height from the headers of image files: int64 [N, 2]."""
    sizes = []
    findings = []
    for record in records:
        try:
            data = read_image_file(record.path)
            sizes.append(read_image_size(data, record.location))
        except ImageError as error:
            findings.append(str(error))

    if findings:
        raise DataError.from_findings(
            f"cannot read {len(findings)} image(s)",
            findings,
            "Replace the files, or remove their rows.",
        )
    return np.array(sizes, np.int64).reshape(-1, 2)


def _count_labels(records: Sequence[Record], classes: Sequence[str]) -> dict[str, int]:
    counts = dict.fromkeys(classes, 0)
    for record in records:
        counts[record.label] += 1
    return counts
