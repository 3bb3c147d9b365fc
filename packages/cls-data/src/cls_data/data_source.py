"""Rows of a data root, whatever its layout: JSONL annotations or class folders."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cls_data.annotations.annotation_files import find_annotation_files
from cls_data.annotations.class_folders import (
    SPLIT_FOLDERS,
    ClassFolders,
    find_splits,
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
    without_images: Collection[Split] = (),
) -> ScannedData:
    """Read every row of all splits, and collect bad rows instead of raising.

    Args:
        root: The data root.
        layout: How the data are annotated.
        annotations: For `jsonl`, subfolder of the root with the split folders, such as `folds/0`.
        quarantine: Rows to leave out.
        split: How to split class folders without a valid folder; None for the defaults.
        without_images: For `jsonl`, splits whose image files need not exist.

    Raises:
        DataError: The root is missing, a split is empty or has another name, such as val/, or the
            quarantine does not match.
    """
    base = Path(os.path.realpath(root))  # unlike Path.resolve, no error for a loop of links
    if uses_class_folders(base, layout, annotations):
        return _scan_class_folders(base, split or FolderSplit(), quarantine or Quarantine({}))

    if not annotations:
        _check_is_not_folder_data(base, layout)
    if quarantine is not None:
        quarantine.check_annotations(annotations)
    splits: dict[Split, SplitRows] = {}
    for name in SPLITS:
        rows = scan_split(
            root,
            name,
            annotations=annotations,
            quarantine=quarantine,
            has_images=name not in without_images,
        )
        if rows.records or rows.bad_rows:
            splits[name] = rows
    check_split_names(base / annotations, base)
    return ScannedData(splits)


def read_data(
    root: str | os.PathLike[str],
    *,
    layout: Layout = "auto",
    annotations: str = "",
    quarantine: Quarantine | None = None,
    split: FolderSplit | None = None,
    without_images: Collection[Split] = (),
) -> dict[Split, list[Record]]:
    """Read every row of all splits that have rows; see `scan_data` for the arguments.

    Raises:
        DataError: As `scan_data`, or rows are malformed or name an image that is missing or
            outside the root. The message lists all such rows of a split.
    """
    data = scan_data(
        root,
        layout=layout,
        annotations=annotations,
        quarantine=quarantine,
        split=split,
        without_images=without_images,
    )
    records = {}
    for name, rows in data.splits.items():
        raise_for_bad_rows(rows, root, name, annotations)
        records[name] = rows.records
    return records


def uses_class_folders(base: Path, layout: Layout, annotations: str = "") -> bool:
    """Return whether a resolved data root is read as class folders."""
    if layout != "auto":
        return layout == "folder"
    if annotations or not base.is_dir():
        return False
    return not has_annotations(base) and has_images(base)


def has_annotations(folder: Path, base: Path | None = None) -> bool:
    """Return whether train/, valid/, or test/ in a folder has annotation files.

    Args:
        folder: The data root, or the subfolder of annotations.
        base: The resolved data root; None if it is `folder`.
    """
    base = base or folder
    for name in SPLITS:
        split = folder / name
        if split.is_dir() and find_annotation_files(split, base):
            return True
    return False


def check_split_names(folder: Path, base: Path) -> None:
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


def _check_is_not_folder_data(base: Path, layout: Layout) -> None:
    """Raise a `DataError` if the splits of a root, or some of them, are class folders only."""
    if not base.is_dir():
        return
    if not has_annotations(base):
        if layout == "jsonl" and has_class_folders(base):
            raise DataError(
                f"{base}: there are class folders, but no annotations (*.jsonl); train on them "
                "with data=folder instead of data=jsonl"
            )
        return

    try:
        splits = find_splits(base)
    except DataError:  # no class folders
        return
    annotated = []
    plain = []
    for split, folder in splits.items():
        is_alias = folder.name != split
        if find_annotation_files(folder, base):
            annotated.append(f"{folder.name}/")
        elif not is_alias or (split == "valid" and not (base / split).exists()):
            plain.append(f"{folder.name}/")
    if annotated and plain and has_class_folders(base):
        raise DataError(
            f"{base}: {', '.join(annotated)} has annotations (*.jsonl), but {', '.join(plain)} has "
            "only class folders. To read the class folders, move the *.jsonl files away or use "
            "data=folder (cls-data: --layout folder); otherwise add annotations to "
            f"{', '.join(plain)}"
        )


def _read_class_folders(base: Path) -> ClassFolders:
    """Read class folders, and point to the annotations if there are some."""
    try:
        found = read_class_folders(base)
    except DataError as error:
        if not has_annotations(base):
            raise
        raise DataError(
            f"{base}: there are annotations (*.jsonl); use data=jsonl instead of data=folder "
            "(cls-data: --layout jsonl)"
        ) from error
    if has_annotations(base):
        found.notes.append("read the class folders, not the annotations (*.jsonl) next to them")
    return found


def _scan_class_folders(base: Path, split: FolderSplit, quarantine: Quarantine) -> ScannedData:
    if not base.is_dir():
        raise DataError(f"{base}: no such folder; expected a folder of class folders")
    found = _read_class_folders(base)
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
