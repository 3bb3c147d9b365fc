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
    parser = create_command(
        commands, "stats", "Count the rows of each class and measure image sizes"
    )
    parser.set_defaults(run=run)
    add_annotations_option(parser)
    add_quarantine_option(parser)
    parser.add_argument(
        "--by",
        metavar="KEY",
        help="also count the rows of each class by the values of this metadata key",
    )
    parser.add_argument(
        "--picture",
        metavar="FILE.png",
        type=Path,
        help="draw the class distribution; needs cls-data[figures]",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    quarantine = load_quarantine(options)
    annotations = options.annotations
    statistics = DatasetStatistics.read(
        options.root, annotations=annotations, quarantine=quarantine
    )
    console = Console()
    console.print(statistics_report(statistics))
    if options.by is not None:
        for split in SPLITS:
            if split not in statistics.counts:
                continue
            records = read_split(
                options.root, split, annotations=annotations, quarantine=quarantine
            )
            slices = MetadataSlices.from_records(
                statistics.classes, records, options.by, limit=_MAX_SLICES
            )
            console.print(f"{split} by {options.by}")
            console.print(slices_table(slices))
    if options.picture is not None:
        save_class_distribution(statistics, options.picture)
        print(f"Wrote {options.picture}")
    return 0
