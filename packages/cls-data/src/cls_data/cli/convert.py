"""`cls-data convert`: write JSONL annotations for other layouts."""

import argparse
from typing import Any

from cls_data.cli.options import describe, path
from cls_data.cli.output import print_line
from cls_data.convert.annotation_writer import ConversionResult
from cls_data.convert.csv_annotations import convert_csv
from cls_data.convert.image_folder import convert_image_folder
from cls_data.convert.roboflow import convert_roboflow
from cls_data.errors import DataError
from cls_data.gate.text import pluralize
from cls_export.contract.arguments import add_choice

_CSV_HELP = {
    "image-column": "column of image paths (default: image, filename, file, or path)",
    "label-column": "column of labels (default: label, class, classid, or category)",
    "split-column": "column of splits (default: split; without it, the folder or name of the file "
    "says the split, such as test.csv, or else rows go to train)",
    "group-column": "column of groups (default: group if there is one)",
    "image-folder": "folder that image paths are relative to (default: the folder of the CSV "
    "file); {label} in it stands for the label of the row",
    "delimiter": "comma, semicolon, tab, pipe, or one character (default: detected)",
    "encoding": "encoding of the text, such as cp1252 (default: UTF-8, or UTF-16 if detected)",
}
"""Help texts of the options for `--from csv`."""

_EXAMPLES = """
cls-data convert photos --from image-folder
cls-data convert photos --from csv --csv photos/labels.csv --label-column number
cls-data convert signs --from csv --csv signs/Images --delimiter semicolon
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
    add_choice(parser, "--from", layouts, dest="layout", required=True, help=text)
    text = (
        "CSV file with a header and one row per image, inside ROOT, or a folder of such files; "
        "can be repeated; for --from csv"
    )
    parser.add_argument("--csv", metavar="FILE", type=path, action="append", help=text)
    for name, text in _CSV_HELP.items():
        metavar = "NAME" if name.endswith("-column") else name.split("-")[-1].upper()
        parser.add_argument(f"--{name}", metavar=metavar, help=text)


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
    given: dict[str, str] = {}
    for name in _CSV_HELP:
        value = getattr(options, name.replace("-", "_"))
        if value is not None:
            given[name] = value

    if options.layout == "csv":
        if not options.csv:
            raise DataError("--from csv requires --csv FILE")
        settings: dict[str, Any] = {}
        for name, value in given.items():
            argument = name.removesuffix("-column").replace("-", "_")
            settings[argument] = value
        return convert_csv(options.root, options.csv, **settings)

    if options.csv:
        raise DataError("--csv requires --from csv")
    if given:
        raise DataError(f"--{next(iter(given))} requires --from csv")
    if options.layout == "image-folder":
        return convert_image_folder(options.root)
    return convert_roboflow(options.root)
