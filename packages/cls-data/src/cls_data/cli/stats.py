"""`cls-data stats`: count classes and measure images."""

import argparse
from pathlib import Path

from rich.console import Console

from cls_data.annotations.reading import SPLITS, read_split
from cls_data.cli.options import (
    Commands,
    add_annotations_option,
    add_quarantine_option,
    create_command,
    load_quarantine,
)
from cls_data.statistics import (
    DatasetStatistics,
    MetadataSlices,
    save_class_distribution,
    slices_table,
    statistics_report,
)

_MAX_SLICES = 6
"""Columns that fit a terminal of 80 characters."""


def add_command(commands: Commands) -> None:
    """Add the parser of `cls-data stats`."""
    summary = "Count the rows of each class and measure image sizes"
    parser = create_command(commands, run, "stats", summary)
    add_annotations_option(parser)
    add_quarantine_option(parser)
    text = "also count the rows of each class by the values of this metadata key"
    parser.add_argument("--by", metavar="KEY", help=text)
    text = "draw the class distribution; needs cls-data[figures]"
    parser.add_argument("--picture", metavar="FILE.png", type=Path, help=text)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    selection = {"annotations": options.annotations, "quarantine": load_quarantine(options)}
    statistics = DatasetStatistics.read(options.root, **selection)
    console = Console()
    console.print(statistics_report(statistics))
    if options.by is not None:
        for split in SPLITS:
            records = read_split(options.root, split, **selection)
            if not records:
                continue
            slices = MetadataSlices.from_records(
                statistics.classes,
                records,
                options.by,
                limit=_MAX_SLICES,
            )
            console.print(f"{split} by {options.by}")
            console.print(slices_table(slices))
    if options.picture is not None:
        save_class_distribution(statistics, options.picture)
        print(f"Wrote {options.picture}")
    return 0
