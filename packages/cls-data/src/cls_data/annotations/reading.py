"""Read and validate `ROOT/{train,valid,test}/**/*.jsonl`, one row per image."""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from cls_data.annotations.annotation_files import find_annotation_files, is_inside
from cls_data.annotations.image_paths import ImagePathError, resolve_image_path
from cls_data.annotations.lines import MAX_LINE_BYTES, read_lines
from cls_data.annotations.path_hints import PathHints
from cls_data.annotations.quarantine import Quarantine
from cls_data.annotations.rows import RowError, parse_row
from cls_data.errors import DataError
from cls_export.contract.text import escape_control_characters

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

_MAX_REASON_LENGTH = 500
"""A row can be a megabyte of garbage; longer reasons are cut."""

_NO_METADATA: Mapping[str, JsonValue] = {}
"""Shared by all rows without metadata. An empty dictionary takes 64 bytes."""

_EXAMPLE = 'Example of a row: {"image": "relative/path.jpg", "suffix": "23"}'


@dataclass(frozen=True, slots=True)
class Record:
    """One annotated image.

    Attributes:
        id: Path of the image relative to the data root, with forward slashes; if the row names a
            link, the path of the link.
        root: Absolute path of the data root. One string for all rows: a path for each of them took
            a third of their memory.
        label: Class name.
        group: Rows of one group (a game, a video) stay in one split; None for no group.
        metadata: Any JSON object.
        source: `file:line` of the row, or the id of an image in a class folder.
    """

    id: str
    root: str
    label: str
    group: str | None
    metadata: Mapping[str, JsonValue]
    source: str

    @property
    def path(self) -> Path:
        """Absolute path of the image."""
        return Path(self.root, self.id)

    @property
    def location(self) -> str:
        """Row and image for messages, such as `train/annotations.jsonl:7: train/7.jpg`."""
        location = self.id if self.source == self.id else f"{self.source}: {self.id}"
        return escape_control_characters(location)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is not a valid record.

    It is malformed (`schema`), or its image is missing or outside the root (`image_file`). The
    reason has no control characters.
    """

    source: str
    kind: Literal["schema", "image_file"]
    reason: str


@dataclass(frozen=True, slots=True)
class SplitRows:
    """All rows of one split, ordered by file name and line, or by image."""

    records: list[Record]
    bad_rows: list[BadRow]


def read_split(
    root: str | os.PathLike[str],
    split: Split,
    *,
    annotations: str = "",
    quarantine: Quarantine | None = None,
) -> list[Record]:
    """Read every row of one split; a missing split folder gives an empty list.

    Raises:
        DataError: As `scan_split`; or rows are malformed, or name an image that is missing or
            outside the root. The message lists all such rows.
    """
    rows = scan_split(root, split, annotations=annotations, quarantine=quarantine)
    raise_for_bad_rows(rows, root, split, annotations)
    return rows.records


def raise_for_bad_rows(
    rows: SplitRows, root: str | os.PathLike[str], split: Split, annotations: str = ""
) -> None:
    """Raise a `DataError` that lists the bad rows of a split, if there are any."""
    if not rows.bad_rows:
        return
    folder = Path(root) / annotations / split
    command = f"cls-data check {shlex.quote(os.fspath(root))}"
    if annotations:
        command += f" --annotations {shlex.quote(annotations)}"
    findings = []
    for bad_row in rows.bad_rows:
        findings.append(f"{bad_row.source}: {bad_row.reason}")
    raise DataError.from_findings(
        f"{len(findings)} bad row(s) under {folder}",
        findings,
        f"{_EXAMPLE}. Fix these rows, or run `{command} --quarantine FILE` to list the rows to "
        "leave out.",
    )


def scan_split(
    root: str | os.PathLike[str],
    split: Split,
    *,
    annotations: str = "",
    quarantine: Quarantine | None = None,
    has_images: bool = True,
) -> SplitRows:
    """Read every row of one split, and collect bad rows instead of raising.

    Args:
        root: The data root, which no image may leave.
        split: Name of the folder under `annotations`. A missing folder gives no rows.
        annotations: Subfolder of the root with the split folders, such as `folds/0`; empty for
            the root itself.
        quarantine: Rows to leave out.
        has_images: Whether the image files must exist.

    Raises:
        DataError: The root is missing, the split folder has no rows, or the quarantine does not
            match the annotations.
    """
    base = Path(os.path.realpath(root))  # unlike Path.resolve, no error for a loop of links
    if not base.is_dir():
        raise DataError(
            f"{root}: no such folder; expected a data root: train/ and valid/ folders with "
            "*.jsonl files, or class folders"
        )
    annotations_folder = Path(os.path.normpath(base / annotations))
    if not annotations_folder.is_relative_to(base) or not annotations_folder.is_dir():
        raise DataError(f"annotations {annotations!r}: no such folder inside the data root {root}")

    folder = annotations_folder / split
    if quarantine is None:
        quarantine = Quarantine({})
    quarantine = quarantine.for_folder(folder.relative_to(base).as_posix())

    rows = SplitRows([], [])
    if not folder.is_dir():
        quarantine.check_all_rows_exist(set())
        return rows

    files = find_annotation_files(folder, base)
    hints = PathHints(str(base))
    quarantined = set()
    for line in _read_sourced_lines(files, base):
        if quarantine.excludes(line.source, line.text):
            quarantined.add(line.source)
            continue
        row = _parse_line(line, str(base), hints, has_images)
        if isinstance(row, Record):
            rows.records.append(row)
        else:
            rows.bad_rows.append(row)
    quarantine.check_all_rows_exist(quarantined)
    if not rows.records and not rows.bad_rows and not quarantined:
        problem = f"{len(files)} *.jsonl file(s), all empty" if files else "no *.jsonl file"
        raise DataError(
            f"{folder}: the split is empty ({problem}). Add rows or remove the folder. {_EXAMPLE}"
        )
    return rows


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of an annotation file, or None if it is too long to read."""

    source: str
    text: bytes | None
    folder: str
    can_quote: bool


def _read_sourced_lines(files: list[Path], base: Path) -> Iterator[_Line]:
    for file in files:
        name = file.relative_to(base).as_posix()
        folder = str(file.parent)
        can_quote = is_inside(file, base)
        for number, text in read_lines(file):
            yield _Line(f"{name}:{number}", text, folder, can_quote)


def _parse_line(line: _Line, root: str, hints: PathHints, has_image: bool) -> Record | BadRow:
    if line.text is None:
        reason = (
            f"the line is over {MAX_LINE_BYTES:,} bytes long; expected one JSON object per line"
        )
        return _bad_row(line.source, "schema", reason)

    try:
        row = parse_row(line.text, can_quote=line.can_quote)
        path = resolve_image_path(root, line.folder, row.image, hints, must_exist=has_image)
    except RowError as error:
        return _bad_row(line.source, "schema", str(error))
    except ImagePathError as error:
        return _bad_row(line.source, "image_file", str(error))

    relative_path = path[len(root) :].replace(os.sep, "/")
    group = None if row.group is None else sys.intern(row.group)
    return Record(
        id=relative_path.lstrip("/"),
        root=root,
        label=sys.intern(row.suffix),
        group=group,
        metadata=row.metadata or _NO_METADATA,
        source=line.source,
    )


def _bad_row(source: str, kind: Literal["schema", "image_file"], reason: str) -> BadRow:
    reason = escape_control_characters(reason)
    if len(reason) > _MAX_REASON_LENGTH:
        beginning = reason[:_MAX_REASON_LENGTH]
        reason = f"{beginning}…"
    return BadRow(source, kind, reason)
