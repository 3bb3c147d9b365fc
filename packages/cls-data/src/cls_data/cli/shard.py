"""`cls-data shard`: write training images as shards, for data larger than the local disk."""

import argparse
import os
import sys
from typing import get_args

from pydantic import ValidationError

from cls_data.cli.check import load_gate_config
from cls_data.cli.options import (
    MAX_WORKERS,
    add_annotations_option,
    add_quarantine_option,
    describe,
    integer,
    load_quarantine,
    path,
)
from cls_data.cli.output import print_line
from cls_data.errors import DataError
from cls_data.gate.text import pluralize
from cls_data.shards.writing import write_shards
from cls_export.contract.arguments import add_choice
from cls_export.contract.errors import format_validation_error
from cls_export.contract.preprocessing import Preprocessing, Resample, Resize

_MAX_SIDE = 8192

_DETAILS = (
    "Runs the data gate on all splits, then decodes and resizes the images of train into files of\n"
    "about 256 MB. The index is written last; an interrupted command is finished by the same one.\n"
    "Train from them with data.shards=URL data.shard_cache=FOLDER. The size and the other\n"
    "settings of pixels must be those of the run."
)
_EXAMPLES = """
cls-data shard photos s3://bucket/photos-256 --size 256 256
cls-data shard photos /mnt/shards --size 224 224 --resize shortest_edge --resize-to 256
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cls-data shard`."""
    describe(parser, _EXAMPLES, _DETAILS)
    text = (
        "folder to write to: a path, or a URL such as s3://bucket/folder (extra s3) or "
        "gs://bucket/folder (extra gcs)"
    )
    parser.add_argument("url", metavar="URL", help=text)
    text = "height and width of the stored images, in pixels"
    side = integer(1, _MAX_SIDE)
    parser.add_argument(
        "--size", metavar=("HEIGHT", "WIDTH"), nargs=2, type=side, required=True, help=text
    )
    text = "as preprocessing.resize of the run (default: %(default)s)"
    add_choice(parser, "--resize", get_args(Resize), default="squash", help=text)
    text = "as preprocessing.resample of the run (default: %(default)s)"
    add_choice(parser, "--resample", get_args(Resample), default="bilinear", help=text)
    text = "as preprocessing.resize_to of the run, for --resize shortest_edge"
    parser.add_argument("--resize-to", metavar="N", type=side, help=text)
    add_annotations_option(parser)
    add_quarantine_option(parser)
    text = "read policies and thresholds of the gate from a YAML file"
    parser.add_argument("--config", metavar="FILE", type=path, help=text)
    text = "override one policy or threshold of the gate; can be repeated"
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=text)
    text = "number of processes that decode images (default: all cores)"
    cores = os.cpu_count() or 1
    workers = integer(1, MAX_WORKERS)
    parser.add_argument("--workers", metavar="N", type=workers, default=cores, help=text)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    height, width = options.size
    try:
        preprocessing = Preprocessing(
            size=(height, width),
            resize=options.resize,
            resample=options.resample,
            resize_to=options.resize_to,
            mean=(0, 0, 0),
            std=(1, 1, 1),
        )
    except ValidationError as error:
        raise DataError(f"--resize: {format_validation_error(error)}") from error
    summary = write_shards(
        options.root,
        options.url,
        preprocessing,
        annotations=options.annotations,
        quarantine=load_quarantine(options),
        gate=load_gate_config(options.config, options.set),
        workers=options.workers,
        progress=sys.stderr.isatty(),
    )
    reused = f", {summary.num_reused} of them written before" if summary.num_reused else ""
    print_line(
        f"Wrote {pluralize(summary.rows, 'row')} ({summary.num_bytes / 1e9:.2f} GB) in "
        f"{pluralize(summary.shards, 'shard')}{reused}. Train from them: "
        f"data.shards={options.url} data.shard_cache=FOLDER"
    )
    return 0
