"""Conversion of a CSV file that lists images and their labels."""

import os
from pathlib import Path

from cls_data.convert.annotation_writer import AnnotationWriter, ConversionResult
from cls_data.convert.csv_table import CsvTable
from cls_data.errors import DataError


def convert_csv(
    root: str | os.PathLike[str],
    table: str | os.PathLike[str],
    *,
    image: str = "image",
    label: str = "label",
    split: str | None = None,
    group: str | None = None,
) -> ConversionResult:
    """Annotate the images that a CSV file with a header lists.

    Image paths are relative to the folder of the CSV file. Columns without a role become
    metadata. All values remain strings.

    Args:
        root: The data root.
        table: The CSV file, inside the data root.
        image: Column of image paths.
        label: Column of labels.
        split: Column of split names; None for the column "split" if there is one. Without such a
            column all rows go to train.
        group: Column of groups; None for the column "group" if there is one. An empty cell means
            no group.

    Raises:
        DataError: The table is malformed, a split already has annotations, or a row has an unknown
            split or an image that is missing or outside the root. The message lists all such rows.
    """
    writer = AnnotationWriter(root)
    file = Path(table).resolve()
    if not file.is_relative_to(writer.root) or not file.is_file():
        raise DataError(
            f"{table}: no such file in the data root {writer.root}; move the CSV file there"
        )
    source = file.relative_to(writer.root).as_posix()
    csv_table = CsvTable.read(file, source)

    names = {"image": image, "label": label}
    for role, name in (("split", split), ("group", group)):
        if name is not None:
            names[role] = name
        elif role in csv_table.header:
            names[role] = role
    columns = {role: csv_table.find_column(name, role) for role, name in names.items()}

    metadata_columns = []
    for index, name in enumerate(csv_table.header):
        if name and index not in columns.values():
            metadata_columns.append((index, name))

    unnamed = csv_table.header.count("")
    if unnamed:
        writer.notes.append(f"{source}: skipped {unnamed} column(s) without a name")

    for line, values in csv_table.rows:
        cells = {role: values[index] for role, index in columns.items()}
        writer.add_row(
            cells.get("split", "train"),
            file.parent / cells["image"],
            cells["label"],
            f"{source}:{line}",
            group=cells.get("group") or None,
            metadata={name: values[index] for index, name in metadata_columns},
        )
    return writer.write("one row per image below the header")
