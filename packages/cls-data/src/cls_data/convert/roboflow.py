"""Conversion of Roboflow's classification exports."""

import os
from pathlib import Path

from cls_data.annotations.reading import SPLITS, Split, read_split
from cls_data.annotations.roboflow_names import roboflow_stem
from cls_data.convert.annotation_writer import (
    AnnotationWriter,
    ConversionResult,
    find_split_folders,
    visible_entries,
)
from cls_data.convert.csv_table import CsvTable
from cls_data.convert.image_folder import add_class_folders
from cls_export.contract.image_folder import has_image_suffix

_CLASSES_CSV = "_classes.csv"


def convert_roboflow(root: str | os.PathLike[str]) -> ConversionResult:
    """Annotate Roboflow's "folder" or "multi-class" export (`_classes.csv` in each split).

    The JSONL export needs no conversion: it is only validated. Roboflow names the augmented copies
    of one source image `name_jpg.rf.<hash>.jpg`. The part before ".rf." becomes the group of the
    row, so that a later split keeps the copies together (and any other images of that name).

    Raises:
        DataError: The root is not such an export, a split already has annotations, or rows are
            malformed, lack their image, or do not have one class. The message lists such rows.
    """
    writer = AnnotationWriter(root)
    folders = find_split_folders(writer.root)
    for _, folder in folders:
        if any(folder.glob("_annotations*.jsonl")):
            return _validate_jsonl(writer.root)

    tables = [folder / _CLASSES_CSV for _, folder in folders]
    has_tables = any(table.is_file() for table in tables)

    if has_tables:
        for split, folder in folders:
            _add_one_hot_rows(writer, split, folder)
    else:
        add_class_folders(writer, folders, roboflow_stem)
    return writer.write("Roboflow's ROOT/train/CLASS/*.jpg or ROOT/train/_classes.csv")


def _validate_jsonl(root: Path) -> ConversionResult:
    counts = []
    for split in SPLITS:
        count = len(read_split(root, split))
        if count:
            counts.append(f"{count} in {split}")

    note = f"Roboflow's JSONL export needs no conversion (rows: {', '.join(counts)})"
    return ConversionResult({}, {}, (note,))


def _add_one_hot_rows(writer: AnnotationWriter, split: Split, folder: Path) -> None:
    """Add the rows of `_classes.csv`: `filename, class, class, ...` with a 1 for the class."""
    file = folder / _CLASSES_CSV
    source = file.relative_to(writer.root).as_posix()
    if not file.is_file():
        writer.add_problem(f"{source}: missing, but another split has one")
        return

    table = CsvTable.read(file, source, [("filename",)])
    name_column = table.find_column("filename", "image")
    classes = table.header.copy()
    del classes[name_column]
    listed = set()
    for line, values in table.rows:
        cells = values.copy()
        name = cells.pop(name_column)
        marked = [label for label, mark in zip(classes, cells, strict=True) if mark == "1"]
        position = f"{source}:{line}"
        listed.add(name)
        if set(cells) - {"0", "1"}:
            writer.add_problem(f"{position}: each value must be 0 or 1")
        elif not marked:
            writer.add_problem(f"{position}: no class is marked with 1")
        elif len(marked) > 1:
            writer.add_problem(
                f"{position}: {len(marked)} classes are marked with 1 ({', '.join(marked)}); "
                "multi-label exports are not supported"
            )
        else:
            group = roboflow_stem(name)
            writer.add_row(
                split,
                folder / name,
                marked[0],
                position,
                stated=(folder, name),
                group=group,
            )

    images = [path.name for path in visible_entries(folder) if has_image_suffix(path)]
    unlisted = set(images) - listed
    if unlisted:
        writer.notes.append(f"{split}: skipped {len(unlisted)} image(s) not in {_CLASSES_CSV}")
