"""`cls-data stats`: count classes and measure images."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from cls_data.annotations.reading import Record, Split
from cls_data.cli.options import (
    add_annotations_option,
    add_layout_option,
    add_quarantine_option,
    describe,
    load_quarantine,
    path,
    refuse_annotations_of_folders,
)
from cls_data.cli.output import print_line, print_renderable
from cls_data.data_source import read_data
from cls_data.errors import DataError
from cls_data.statistics import (
    DatasetStatistics,
    MetadataSlices,
    save_class_distribution,
    slices_table,
    statistics_report,
)
from cls_export.contract.suggestions import did_you_mean

_MAX_SLICES = 6
"""Columns that fit a terminal of 80 characters."""

_EXAMPLES = """
cls-data stats photos
cls-data stats photos --by camera --picture classes.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cls-data stats`."""
    describe(parser, _EXAMPLES)
    add_annotations_option(parser)
    add_layout_option(parser)
    add_quarantine_option(parser)
    text = "also count the rows of each class by the values of this metadata key"
    parser.add_argument("--by", metavar="KEY", help=text)
    text = "draw the class distribution; needs cls-data[figures]"
    parser.add_argument("--picture", metavar="FILE.png", type=path, help=text)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    quarantine = load_quarantine(options)
    refuse_annotations_of_folders(options)
    selection: dict[str, Any] = {
        "annotations": options.annotations,
        "quarantine": quarantine,
        "layout": options.layout,
    }
    statistics = DatasetStatistics.read(options.root, **selection)
    slices = {}
    if options.by is not None:
        records = read_data(options.root, **selection)
        slices = _slice(records, statistics.classes, options.by)

    print_renderable(statistics_report(statistics))
    for split, counts in slices.items():
        print_line(f"{split} by {options.by}")
        print_renderable(slices_table(counts))
    if options.picture is not None:
        save_class_distribution(statistics, options.picture)
        print_line(f"Wrote {options.picture}")
    return 0


def _slice(
    records: Mapping[Split, Sequence[Record]], classes: Sequence[str], key: str
) -> dict[Split, MetadataSlices]:
    """Count the rows of each split by a metadata key.

    Raises:
        DataError: No row has the key.
    """
    slices = {}
    known: set[str] = set()
    for split, rows in records.items():
        for record in rows:
            known.update(record.metadata)
        if rows:
            slices[split] = MetadataSlices.from_records(classes, rows, key, limit=_MAX_SLICES)

    if key not in known:
        hint = did_you_mean(key, known) if known else "the rows have no metadata"
        raise DataError(f"--by {key}: no row has this key in its metadata; {hint}")
    return slices
