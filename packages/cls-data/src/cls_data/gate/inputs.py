"""What the rules look at, and what they say."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cls_data.annotations.reading import SPLITS, BadRow, Record
from cls_data.gate.inspection import Inspection


@dataclass(frozen=True)
class Row:
    """A record in its split, with the place of its image file in the inspection."""

    split: str
    record: Record
    file: int


@dataclass(frozen=True)
class GateInputs:
    """All that the rules look at.

    Attributes:
        rows: the good rows of every split.
        bad: the bad rows of every split.
        files: what was found in the image files, each once.
    """

    rows: Sequence[Row]
    bad: Sequence[BadRow]
    files: Inspection

    @cached_property
    def counts(self) -> dict[str, Counter[str]]:
        """Rows of each label, for every split that has rows."""
        counts: dict[str, Counter[str]] = {}
        for row in self.rows:
            counts.setdefault(row.split, Counter())[row.record.label] += 1
        return {split: counts[split] for split in SPLITS if split in counts}

    @cached_property
    def by_file(self) -> list[list[Row]]:
        """The rows that name each image file."""
        rows: list[list[Row]] = [[] for _ in range(len(self.files))]
        for row in self.rows:
            rows[row.file].append(row)
        return rows

    @cached_property
    def decoded(self) -> list[int]:
        """The image files that could be decoded and that rows still name."""
        return [
            file
            for file, rows in enumerate(self.by_file)
            if rows and file not in self.files.problems
        ]

    @cached_property
    def images(self) -> list[list[Row]]:
        """The rows of each image: those whose files have the same pixels (the same bytes then have, too)."""
        rows: dict[bytes, list[Row]] = {}
        for row in self.rows:
            if row.file not in self.files.problems:
                rows.setdefault(self.files.pixel_digests[row.file], []).append(row)
        return list(rows.values())

    @cached_property
    def same_images(self) -> list[list[Row]]:
        """The rows of each image that has several."""
        return [rows for rows in self.images if len(rows) > 1]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        text: what, led by `file:line` where it is about rows.
        sources: `file:line` of all rows concerned.
        leave_out: those of them without which nothing would be wrong here.
        files: places of the images to show, in the inspection.
        weight: by which the worst are shown first.
    """

    text: str
    sources: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    files: tuple[int, ...] = ()
    weight: float = 0.0


def about(
    rows: Sequence[Row],
    text: str,
    leave_out: Sequence[Row] = (),
    *,
    show: bool = True,
    weight: float = 0.0,
) -> Finding:
    """Return a finding about some rows, led by the first one's place; `show` says whether to show their images."""
    first, *others = rows
    named = ", ".join(row.record.source for row in others[:4])
    more = f", … {len(others) - 4} more" if len(others) > 4 else ""
    also = f" (and {named}{more})" if others else ""
    return Finding(
        f"{first.record.source}: {first.record.id}: {text}{also}",
        tuple(row.record.source for row in rows),
        tuple(row.record.source for row in leave_out),
        tuple(dict.fromkeys(row.file for row in rows)) if show else (),
        weight or float(len(rows)),
    )


def splits_of(rows: Sequence[Row]) -> list[str]:
    """Return the splits of some rows, train first and test last."""
    found = {row.split for row in rows}
    return [split for split in SPLITS if split in found]
