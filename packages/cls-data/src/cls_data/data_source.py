"""Rows of a data root, whatever its layout: JSONL annotations or class folders."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cls_data.annotations.annotation_files import find_annotation_files
from cls_data.annotations.class_folders import (
    SPLIT_FOLDERS,
    has_class_folders,
    has_images,
    read_class_folders,
)
from cls_data.annotations.quarantine import Quarantine
from cls_data.annotations.reading import (
    SPLITS,
    Record,
    Split,
    SplitRows,
    raise_for_bad_rows,
    scan_split,
)
from cls_data.errors import DataError
from cls_data.splits.folder_split import FolderSplit, split_records

Layout = Literal["auto", "jsonl", "folder"]
"""`jsonl`: ROOT/{train,valid,test}/**/*.jsonl. `folder`: ROOT/{train,valid,test}/CLASS/**/image, or
ROOT/CLASS/**/image. `auto`: class folders if there are images, but no annotation file."""


@dataclass(frozen=True, slots=True)
class ScannedData:
    """The rows of all splits that have rows.

    Attributes:
        splits: The rows by split.
        is_split_made: Whether class folders without a valid folder were split.
        skipped_notes: What was skipped, as sentences for the user.
    """

    splits: Mapping[Split, SplitRows]
    is_split_made: bool = False
    skipped_notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was skipped, and how the images were split, as sentences for the user."""
        if not self.is_split_made:
            return self.skipped_notes
        counts = [f"{len(rows.records)} {split}" for split, rows in self.splits.items()]
        return (*self.skipped_notes, f"split the images by class: {', '.join(counts)}")


def scan_data(
    root: str | os.PathLike[str],
    *,
    layout: Layout = "auto",
    annotations: str = "",
    quarantine: Quarantine | None = None,
    split: FolderSplit | None = None,
) -> ScannedData:
    """Read every row of all splits, and collect bad rows instead of raising.

    Args:
        root: The data root.
        layout: How the data are annotated.
        annotations: For `jsonl`, subfolder of the root with the split folders, such as `folds/0`.
        quarantine: Rows to leave out.
        split: How to split class folders without a valid folder; None for the defaults.

    Raises:
        DataError: The root is missing, a split is empty or has another name, such as val/, or the
            quarantine does not match.
    """
    base = Path(os.path.realpath(root))  # unlike Path.resolve, no error for a loop of links
    if uses_class_folders(base, layout, annotations):
        return _scan_class_folders(base, split or FolderSplit(), quarantine or Quarantine({}))

    if layout == "jsonl" and not annotations and not _has_annotations(base):
        _check_is_not_folder_data(base)
    if quarantine is not None:
        quarantine.check_annotations(annotations)
    splits: dict[Split, SplitRows] = {}
    for name in SPLITS:
        rows = scan_split(root, name, annotations=annotations, quarantine=quarantine)
        if rows.records or rows.bad_rows:
            splits[name] = rows
    _check_split_names(base / annotations, base)
    return ScannedData(splits)


def read_data(
    root: str | os.PathLike[str],
    *,
    layout: Layout = "auto",
    annotations: str = "",
    quarantine: Quarantine | None = None,
    split: FolderSplit | None = None,
) -> dict[Split, list[Record]]:
    """Read every row of all splits that have rows; see `scan_data` for the arguments.

    Raises:
        DataError: As `scan_data`, or rows are malformed or name an image that is missing or
            outside the root. The message lists all such rows of a split.
    """
    data = scan_data(
        root, layout=layout, annotations=annotations, quarantine=quarantine, split=split
    )
    records = {}
    for name, rows in data.splits.items():
        raise_for_bad_rows(rows, Path(root) / annotations / name)
        records[name] = rows.records
    return records


def uses_class_folders(base: Path, layout: Layout, annotations: str = "") -> bool:
    """Return whether a resolved data root is read as class folders."""
    if layout != "auto":
        return layout == "folder"
    if annotations or not base.is_dir():
        return False
    return not _has_annotations(base) and has_images(base)


def _has_annotations(base: Path) -> bool:
    for name in SPLITS:
        folder = base / name
        if folder.is_dir() and find_annotation_files(folder, base):
            return True
    return False


def _check_split_names(folder: Path, base: Path) -> None:
    """Raise a `DataError` if there are annotations in a folder that is not read, such as val/."""
    for path in sorted(folder.iterdir()):
        split = SPLIT_FOLDERS.get(path.name.lower())
        if split is None or path.name in SPLITS or not path.is_dir():
            continue
        expected = folder / split
        is_read = expected.is_dir() and path.samefile(expected)
        if not is_read and find_annotation_files(path, base):
            raise DataError(
                f"{path}: has annotations, but only those in train/, valid/, and test/ are read; "
                f"rename it to {split}/, or move it away"
            )


def _check_is_not_folder_data(base: Path) -> None:
    if base.is_dir() and has_class_folders(base):
        raise DataError(
            f"{base}: there are class folders, but no annotations (*.jsonl); train on them with "
            "data=folder instead of data=jsonl"
        )


def _scan_class_folders(base: Path, split: FolderSplit, quarantine: Quarantine) -> ScannedData:
    if not base.is_dir():
        raise DataError(f"{base}: no such folder; expected a folder of class folders")
    found = read_class_folders(base)
    by_split = found.records
    is_split_made = "valid" not in by_split
    skipped_notes = list(found.notes)
    if is_split_made:
        made = split_records(by_split["train"], split, with_test=not found.has_splits)
        by_split = by_split | made
    elif split != FolderSplit():
        skipped_notes.append("data.split has no effect, because there is a valid folder")

    quarantined = set()
    splits: dict[Split, SplitRows] = {}
    for name in SPLITS:
        records = []
        for record in by_split.get(name, ()):
            if quarantine.excludes_file(record.source, record.path):
                quarantined.add(record.source)
            else:
                records.append(record)
        if records:
            splits[name] = SplitRows(records, [])
    quarantine.check_all_rows_exist(quarantined)
    return ScannedData(splits, is_split_made, tuple(skipped_notes))
