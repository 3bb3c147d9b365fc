"""Conversion of class folders: `ROOT/{train,valid,test}/CLASS/**/image`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from cls_data.annotations.class_folders import find_splits
from cls_data.annotations.reading import SPLITS, Split
from cls_data.convert.annotation_writer import (
    AnnotationWriter,
    ConversionResult,
    visible_entries,
)
from cls_export.contract.image_folder import find_images, has_image_suffix

GetGroup = Callable[[str], str | None]
"""Returns the group of an image by its file name."""


def convert_image_folder(root: str | os.PathLike[str]) -> ConversionResult:
    """Annotate `ROOT/{train,valid,test}/CLASS/**/image`, or `ROOT/CLASS/**/image` as train.

    The split folders may have other common names, such as "val" or "training". Hidden files and
    folders are skipped, and links are followed. The notes count all that is skipped.

    Raises:
        DataError: No class folder has images, a split already has annotations, or an image
            cannot be annotated.
    """
    writer = AnnotationWriter(root)
    folders = sorted(find_splits(writer.root).items())
    if folders:
        entries = list(visible_entries(writer.root))
        other_folders = sum(path.is_dir() for path in entries) - len(folders)
        if other_folders:
            writer.notes.append(f"Skipped {other_folders} folder(s) next to the splits")
    else:
        folders = [("train", writer.root)]
    add_class_folders(writer, folders)
    return writer.write("ROOT/train/CLASS/image.jpg or ROOT/CLASS/image.jpg")


def add_class_folders(
    writer: AnnotationWriter,
    folders: Sequence[tuple[Split, Path]],
    get_group: GetGroup | None = None,
) -> None:
    """Add a row for each image in the class folders of the splits, and notes about the rest."""
    # One search of the whole root: a link from one class folder to another does not give its
    # images a second label.
    found = find_images(writer.root)
    for split, folder in folders:
        _add_split(writer, split, folder, found.images, get_group)
    del found.skipped[".jsonl"]  # annotations of an earlier conversion
    if found.skipped:
        writer.notes.append(f"Skipped files: {found.describe_skipped()}")


def _add_split(
    writer: AnnotationWriter,
    split: Split,
    folder: Path,
    images: Sequence[Path],
    get_group: GetGroup | None,
) -> None:
    outside = 0
    labels = set()
    for path in images:
        if not path.is_relative_to(folder):
            continue
        class_folder, *rest = path.relative_to(folder).parts
        if not rest:
            outside += 1
            continue
        labels.add(class_folder)
        source = ascii(path.relative_to(writer.root).as_posix())[1:-1]
        group = None if get_group is None else get_group(path.name)
        writer.add_row(split, path, class_folder, source, group=group)

    start = "" if folder == writer.root else f"{folder.relative_to(writer.root).as_posix()}: "
    if outside:
        writer.notes.append(f"{start}skipped {outside} image(s) outside of class folders")
    empty = [path for path in visible_entries(folder) if _is_empty_class(path, labels)]
    if empty:
        writer.notes.append(f"{start}skipped {len(empty)} class folder(s) without images")


def _is_empty_class(path: Path, labels: set[str]) -> bool:
    """Return whether a path is a folder without images, and not made for annotations."""
    is_split = path.name in SPLITS
    return path.is_dir() and path.name not in labels and (not is_split or _has_content(path))


def _has_content(folder: Path) -> bool:
    """Return whether a folder has folders or images, and not only annotations."""
    return any(path.is_dir() or has_image_suffix(path) for path in visible_entries(folder))
