"""`cls-data convert`: write JSONL annotations for other layouts."""

import argparse

from cls_data.cli.options import describe, path
from cls_data.cli.output import print_line
from cls_data.convert.annotation_writer import ConversionResult
from cls_data.convert.csv_annotations import convert_csv
from cls_data.convert.image_folder import convert_image_folder
from cls_data.convert.roboflow import convert_roboflow
from cls_data.errors import DataError
from cls_data.gate.text import pluralize

_COLUMN_HELP = {
    "image": "CSV column of image paths, relative to the CSV file (default: image)",
    "label": "CSV column of labels (default: label)",
    "split": "CSV column of splits (default: split if there is one, else all rows go to train)",
    "group": "CSV column of groups (default: group if there is one)",
}

_EXAMPLES = """
cls-data convert photos --from image-folder
cls-data convert photos --from csv --csv photos/labels.csv --label-column number
cls-data convert export --from roboflow
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cls-data convert`."""
    describe(
        parser,
        _EXAMPLES,
        "Images stay in their folders.",
        root_help="the folder that holds the images, which becomes the data root",
    )
    layouts = ["image-folder", "csv", "roboflow"]
    text = "current layout of ROOT"
    parser.add_argument("--from", dest="layout", choices=layouts, required=True, help=text)
    text = "CSV file with a header and one row per image, inside ROOT; for --from csv"
    parser.add_argument("--csv", metavar="FILE", type=path, help=text)
    for role, text in _COLUMN_HELP.items():
        parser.add_argument(f"--{role}-column", metavar="NAME", help=text)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    result = _convert(options)

    for split, file in result.files.items():
        rows = pluralize(result.row_counts[split], "row")
        print_line(f"Wrote {file} ({rows})")
    for note in result.notes:
        print_line(note)

    return 0


def _convert(options: argparse.Namespace) -> ConversionResult:
    columns: dict[str, str] = {}
    for role in _COLUMN_HELP:
        name = getattr(options, f"{role}_column")
        if name is not None:
            columns[role] = name

    if options.layout == "csv":
        if options.csv is None:
            raise DataError("--from csv requires --csv FILE")
        return convert_csv(options.root, options.csv, **columns)

    if options.csv is not None:
        raise DataError("--csv requires --from csv")
    if columns:
        raise DataError(f"--{next(iter(columns))}-column requires --from csv")
    if options.layout == "image-folder":
        return convert_image_folder(options.root)
    return convert_roboflow(options.root)
