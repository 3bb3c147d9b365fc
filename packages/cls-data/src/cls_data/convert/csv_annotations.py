"""Conversion of CSV files that list images and their labels."""

import os
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from cls_data.annotations.class_folders import SPLIT_FOLDERS
from cls_data.convert.annotation_writer import AnnotationWriter, ConversionResult
from cls_data.convert.csv_table import CsvTable
from cls_data.convert.csv_text import parse_delimiter
from cls_data.errors import DataError

_IMAGE_COLUMNS = ("image", "filename", "file", "path", "filepath", "imagepath", "imagename", "img")
_LABEL_COLUMNS = ("label", "class", "classid", "classname", "category", "suffix", "target")
_TABLE_SUFFIXES = (".csv", ".tsv")

_TablePath = str | os.PathLike[str]


def convert_csv(
    root: _TablePath,
    table: _TablePath | Sequence[_TablePath],
    *,
    image: str | None = None,
    label: str | None = None,
    split: str | None = None,
    group: str | None = None,
    image_folder: _TablePath | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
) -> ConversionResult:
    """Annotate the images that CSV files with a header list.

    Cells are stripped of blanks, and all values remain strings. Columns are found whatever their
    letter case. Columns without a role become metadata.

    Args:
        root: The data root.
        table: CSV files inside the data root, or folders that hold them, such as one per class.
        image: Column of image paths; None for the usual names, such as "image" or "filename".
        label: Column of labels; None for the usual names, such as "label" or "class".
        split: Column of split names; None for the column "split" if there is one. Without such a
            column, rows go to the split that the table's folder or name says, such as `test.csv`,
            or else to train.
        group: Column of groups; None for the column "group" if there is one. An empty cell means
            no group.
        image_folder: Folder that image paths are relative to; None for the folder of the table.
            `{label}` in it stands for the label of the row.
        delimiter: One character, or "comma", "semicolon", "tab", or "pipe"; None to detect it.
        encoding: Encoding of the text; None for UTF-8, or UTF-16 or UTF-32 if detected.

    Raises:
        DataError: The image folder is missing, a table is malformed, a split already has
            annotations, or a row has an unknown split or an image that is missing or outside the
            root. The message lists all such rows.
    """
    writer = AnnotationWriter(root)
    if delimiter is not None:
        delimiter = parse_delimiter(delimiter)
    if image_folder is not None:
        _check_image_folder(os.fspath(image_folder), root)
    given = {"image": image, "label": label, "split": split, "group": group}
    tables = [table] if isinstance(table, str | os.PathLike) else table

    for file in _find_tables(writer.root, root, tables):
        csv_table = CsvTable.read(
            file,
            file.relative_to(writer.root).as_posix(),
            _expected_columns(given),
            delimiter=delimiter,
            encoding=encoding,
        )
        folder = None if image_folder is None else os.fspath(image_folder)
        _add_table(writer, file, csv_table, _find_columns(csv_table, given), folder)
    return writer.write("one row per image below the header")


def _check_image_folder(folder: str, root: _TablePath) -> None:
    """Raise a `DataError` if a folder that does not depend on the label is missing."""
    if "{label}" in folder or Path(folder).is_dir():
        return
    hint = "expected the folder that image paths are relative to"
    if (Path(root) / folder).is_dir():
        hint = f"did you mean {Path(root) / folder}?"
    raise DataError(f"image folder {folder}: no such folder; {hint}")


def _find_tables(root: Path, stated_root: _TablePath, tables: Sequence[_TablePath]) -> list[Path]:
    """Return the tables as paths below the resolved root; folders stand for the tables in them."""
    files: list[Path] = []
    for table in tables:
        path = _move_below(root, stated_root, table)
        if path is not None and path.is_dir():
            found = [file for file in sorted(path.rglob("*")) if _is_table(file, path)]
            if not found:
                raise DataError(f"{table}: no *.csv or *.tsv file in this folder")
            files += found
        elif path is not None and path.exists():
            files.append(path)
        else:
            raise DataError(_describe_missing_table(root, stated_root, table))
    return list(dict.fromkeys(files))


def _describe_missing_table(root: Path, stated_root: _TablePath, table: _TablePath) -> str:
    problem = f"{table}: no such file in the data root {root}"
    if not Path(table).is_absolute() and (root / table).exists():
        return f"{problem}; did you mean {Path(stated_root) / table}?"
    if Path(table).exists():
        return f"{problem}; move the CSV file there"
    return f"{table}: this file does not exist; expected a CSV file in the data root {root}"


def _move_below(root: Path, stated_root: _TablePath, table: _TablePath) -> Path | None:
    """Return a path below the resolved root, by its stated name if possible; None if outside."""
    stated = Path(os.path.abspath(table))  # noqa: PTH100 (keeps links)
    base = Path(os.path.abspath(stated_root))  # noqa: PTH100
    if stated.is_relative_to(base):
        return root / stated.relative_to(base)
    resolved = Path(os.path.realpath(table))
    return resolved if resolved.is_relative_to(root) else None


def _is_table(file: Path, folder: Path) -> bool:
    names = file.relative_to(folder).parts
    is_visible = not any(name.startswith(".") for name in names)
    return is_visible and file.suffix.lower() in _TABLE_SUFFIXES and file.is_file()


def _expected_columns(given: dict[str, str | None]) -> list[Sequence[str]]:
    """Return the possible names of each column, to detect the delimiter."""
    usual = {"image": _IMAGE_COLUMNS, "label": _LABEL_COLUMNS}
    expected: list[Sequence[str]] = []
    for role, name in given.items():
        if name is not None:
            expected.append((name,))
        elif role in usual:
            expected.append(usual[role])
    return expected


def _find_columns(table: CsvTable, given: dict[str, str | None]) -> dict[str, int]:
    """Return the index of the column of each role that has one."""
    columns = {}
    for role, name in given.items():
        if name is not None:
            columns[role] = table.find_column(name, role)
        elif role == "image":
            columns[role] = table.find_usual_column(_IMAGE_COLUMNS, role)
        elif role == "label":
            columns[role] = table.find_usual_column(_LABEL_COLUMNS, role)
        elif table.has_column(role):
            columns[role] = table.find_column(role, role)
    return columns


def _add_table(
    writer: AnnotationWriter,
    file: Path,
    table: CsvTable,
    columns: dict[str, int],
    image_folder: str | None,
) -> None:
    metadata_columns = []
    for index, name in enumerate(table.header):
        if name and index not in columns.values():
            metadata_columns.append((index, name))
    unnamed = table.header.count("")
    if unnamed:
        writer.notes.append(f"{table.source}: skipped {unnamed} column(s) without a name")
    image_column = table.header[columns["image"]]
    label_column = table.header[columns["label"]]
    note = f"Images from column {image_column!r}, labels from column {label_column!r}"
    is_usual = (image_column, label_column) == ("image", "label")
    if not is_usual and note not in writer.notes:
        writer.notes.append(note)
    default_split = _split_of_table(file.relative_to(writer.root))

    for line, values in table.rows:
        cells = {role: values[index] for role, index in columns.items()}
        position = f"{table.source}:{line}"
        if not cells["image"]:
            writer.add_problem(f"{position}: the image cell is empty")
            continue
        folder = file.parent
        if image_folder is not None:
            folder = Path(os.path.abspath(image_folder.replace("{label}", cells["label"])))  # noqa: PTH100
        writer.add_row(
            cells.get("split", default_split),
            _locate(folder, cells["image"]),
            cells["label"],
            position,
            stated=(folder, cells["image"]),
            group=cells.get("group") or None,
            metadata={name: values[index] for index, name in metadata_columns},
        )


def _locate(folder: Path, cell: str) -> Path:
    r"""Return the path of an image; `\` separates folders if no file has it in its name."""
    path = folder / cell
    is_windows_path = "\\" in cell and not PureWindowsPath(cell).anchor
    if is_windows_path and not os.path.lexists(path):
        return folder / cell.replace("\\", "/")
    return path


def _split_of_table(table: Path) -> str:
    """Return the split that a table's folder or name says, such as `test.csv`, or "train".

    The path is relative to the data root.
    """
    folder = table.parts[0].lower() if len(table.parts) > 1 else ""
    by_name = SPLIT_FOLDERS.get(table.stem.lower(), "train")
    return SPLIT_FOLDERS.get(folder, by_name)
