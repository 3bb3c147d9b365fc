"""Conversion of class folders: `ROOT/{train,valid,test}/CLASS/**/image`."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from cls_data.annotations.reading import Split
from cls_data.convert.annotation_writer import (
    AnnotationWriter,
    ConversionResult,
    find_split_folders,
    is_image_file,
    visible_entries,
)

GetGroup = Callable[[str], str | None]
"""Returns the group of an image by its file name."""


def convert_image_folder(root: str | os.PathLike[str]) -> ConversionResult:
    """Annotate `ROOT/{train,valid,test}/CLASS/**/image`, or `ROOT/CLASS/**/image` as train.

    The folder of valid may also be named "val" or "validation". Hidden files and folders are
    ignored, and links to folders are not followed. The notes count everything else that is skipped.

    Raises:
        DataError: No class folder has images, a split already has annotations, or an image
            cannot be annotated.
    """
    writer = AnnotationWriter(root)
    folders = find_split_folders(writer.root)

    if folders:
        entries = list(visible_entries(writer.root))
        other_folders = sum(path.is_dir() for path in entries) - len(folders)
        if other_folders:
            writer.notes.append(f"Skipped {other_folders} folder(s) next to the splits")
    else:
        folders = [("train", writer.root)]

    for split, folder in folders:
        add_class_folders(writer, split, folder)
    return writer.write("ROOT/train/CLASS/image.jpg or ROOT/CLASS/image.jpg")


def add_class_folders(
    writer: AnnotationWriter, split: Split, folder: Path, get_group: GetGroup | None = None
) -> None:
    """Add a row for each image in the class folders of a split, and notes about skipped files."""
    skipped: Counter[str] = Counter()
    for entry in sorted(visible_entries(folder)):
        if entry.is_dir():
            skipped += _add_class_folder(writer, split, entry, get_group)
        elif is_image_file(entry):
            skipped["image(s) outside of class folders"] += 1
        else:
            skipped["file(s) that are not images"] += 1
    name = folder.relative_to(writer.root).as_posix()
    for description, count in skipped.items():
        writer.notes.append(f"{name}: skipped {count} {description}")


def _add_class_folder(
    writer: AnnotationWriter, split: Split, folder: Path, get_group: GetGroup | None
) -> Counter[str]:
    """Add the images of one class, and return how many entries were skipped, by description."""
    skipped: Counter[str] = Counter()
    has_images = False

    for path in _walk(folder):
        if is_image_file(path):
            has_images = True
            source = ascii(path.relative_to(writer.root).as_posix())[1:-1]
            group = None if get_group is None else get_group(path.name)
            writer.add_row(split, path, folder.name, source, group=group)
        elif path.is_dir():
            skipped["link(s) to folders"] += 1
        else:
            skipped["file(s) that are not images"] += 1
    if not has_images:
        skipped["class folder(s) without images"] += 1

    return skipped


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in sorted order, and links to folders themselves."""
    for path in sorted(visible_entries(folder)):
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path
