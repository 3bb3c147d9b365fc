"""Inputs and findings of the gate's rules."""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np

from cls_data.annotations.reading import SPLITS, BadRow, Record, Split
from cls_data.gate.duplicates import find_near_duplicates
from cls_data.gate.inspection import InspectionResult
from cls_export.contract.text import escape_control_characters

_MAX_NAMED_ROWS = 4


@dataclass(frozen=True, slots=True)
class GateRow:
    """A record, its split, and the index of its image file in the inspection result."""

    split: Split
    record: Record
    file: int


@dataclass(frozen=True)
class GateInputs:
    """Everything that the rules look at; several rows may share an image file."""

    rows: Sequence[GateRow]
    bad_rows: Sequence[BadRow]
    files: InspectionResult
    _near_duplicates: dict[tuple[int, float], list[list[GateRow]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def class_counts(self) -> dict[str, Counter[str]]:
        """Number of rows per label, for each split that has rows."""
        counts: dict[str, Counter[str]] = {}
        for split in sorted_splits(self.rows):
            counts[split] = Counter()
        for row in self.rows:
            counts[row.split][row.record.label] += 1
        return counts

    @cached_property
    def rows_by_file(self) -> list[list[GateRow]]:
        """The rows of each image file."""
        rows: list[list[GateRow]] = [[] for _ in range(len(self.files))]
        for row in self.rows:
            rows[row.file].append(row)
        return rows

    @cached_property
    def decoded_files(self) -> list[int]:
        """Indices of the image files that could be decoded and have rows."""
        files = []
        for file, rows in enumerate(self.rows_by_file):
            if rows and file not in self.files.problems:
                files.append(file)

        return files

    @cached_property
    def rows_by_image(self) -> list[list[GateRow]]:
        """The rows of each image; files with the same pixels are one image."""
        images: dict[bytes, list[GateRow]] = {}
        for row in self.rows:
            if row.file not in self.files.problems:
                digest = self.files.pixel_digests[row.file]
                images.setdefault(digest, []).append(row)
        return list(images.values())

    def near_duplicates(self, bits: int, levels: float) -> list[list[GateRow]]:
        """Return the rows of each set of different images that look alike.

        Searches once for all rules with the same limits; see `find_near_duplicates`.
        """
        if (bits, levels) not in self._near_duplicates:
            self._near_duplicates[bits, levels] = self._find_near_duplicates(bits, levels)
        return self._near_duplicates[bits, levels]

    def _find_near_duplicates(self, bits: int, levels: float) -> list[list[GateRow]]:
        images = self.rows_by_image
        files = np.array([rows[0].file for rows in images], np.int64)
        hashes = self.files.hashes[files]
        thumbnails = self.files.thumbnails[files]
        found = []
        for cluster in find_near_duplicates(hashes, thumbnails, bits=bits, levels=levels):
            rows: list[GateRow] = []
            for image in cluster:
                rows += images[image]
            found.append(rows)
        return found

    @cached_property
    def duplicates(self) -> list[list[GateRow]]:
        """The rows of each image that has several rows."""
        return [rows for rows in self.rows_by_image if len(rows) > 1]

    def without(self, sources: Container[str]) -> "GateInputs":
        """Return the inputs without the rows at some `file:line` positions."""
        return GateInputs(
            rows=[row for row in self.rows if row.record.source not in sources],
            bad_rows=[row for row in self.bad_rows if row.source not in sources],
            files=self.files,
        )


@dataclass(frozen=True)
class Finding:
    """One problem in the data.

    Attributes:
        text: The problem and how to fix it; starts with `file:line` if it concerns rows.
        sources: `file:line` of all rows concerned.
        quarantine: `file:line` of the rows whose removal fixes the problem.
        files: Indices of the image files to draw.
        severity: Sort key; the highest comes first.
    """

    text: str
    sources: tuple[str, ...] = ()
    quarantine: tuple[str, ...] = ()
    files: tuple[int, ...] = ()
    severity: float = 0.0

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[GateRow],
        problem: str,
        fix: str,
        *,
        quarantine: Sequence[GateRow],
        has_images: bool = True,
        severity: float | None = None,
    ) -> Self:
        """Return a finding about some rows; the text names the first by `file:line` and image.

        Args:
            rows: The rows concerned.
            problem: What is wrong.
            fix: What to do about it.
            quarantine: The rows whose removal fixes the problem.
            has_images: Whether the rows' images can be drawn and are worth a look.
            severity: The number of rows by default.
        """
        if severity is None:
            severity = float(len(rows))
        files: dict[int, None] = {}
        if has_images:
            files = dict.fromkeys(row.file for row in rows)

        first = rows[0].record
        return cls(
            text=f"{first.location}: {problem}{_other_rows(rows[1:])}; {fix}",
            sources=_sources(rows),
            quarantine=_sources(quarantine),
            files=tuple(files),
            severity=severity,
        )


def sorted_splits(rows: Sequence[GateRow]) -> list[Split]:
    """Return the splits of some rows in the order train, valid, test."""
    present = {row.split for row in rows}
    return [split for split in SPLITS if split in present]


def unique_labels(rows: Sequence[GateRow]) -> set[str]:
    """Return the different labels of some rows."""
    return {row.record.label for row in rows}


def _sources(rows: Sequence[GateRow]) -> tuple[str, ...]:
    return tuple(row.record.source for row in rows)


def _other_rows(rows: Sequence[GateRow]) -> str:
    if not rows:
        return ""

    names = list(_sources(rows[:_MAX_NAMED_ROWS]))
    more = len(rows) - _MAX_NAMED_ROWS
    if more > 0:
        names.append(f"and {more} more")
    return escape_control_characters(f" (also {', '.join(names)})")
