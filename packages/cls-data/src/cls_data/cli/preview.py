"""`cls-data preview`: draw augmented images."""

import argparse
from pathlib import Path

import torch

from cls_data.annotations.reading import read_split
from cls_data.augmentation.preview import PIPELINES, draw_preview
from cls_data.cli.options import (
    Commands,
    add_annotations_option,
    add_quarantine_option,
    add_seed_option,
    create_command,
    create_preprocessing,
    load_quarantine,
    positive_int,
)
from cls_data.errors import DataError
from cls_data.images.store import ImageStore


def add_command(commands: Commands) -> None:
    """Add the parser of `cls-data preview`."""
    summary = "Draw training images next to augmented versions of them"
    parser = create_command(commands, run, "preview", summary)
    add_annotations_option(parser)
    add_quarantine_option(parser)
    text = "augmentation to draw; can be repeated (default: all)"
    parser.add_argument("--augmentation", choices=list(PIPELINES), action="append", help=text)
    text = "write AUGMENTATION.png files to this folder (default: %(default)s)"
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path("preview"), help=text)
    parser.add_argument(
        "--size",
        metavar="PIXELS",
        type=positive_int,
        default=64,
        help="side of the resized images (default: %(default)s)",
    )
    text = "number of images (default: %(default)s)"
    parser.add_argument("--images", metavar="N", type=positive_int, default=8, help=text)
    add_seed_option(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    records = read_split(
        options.root, "train", annotations=options.annotations, quarantine=load_quarantine(options)
    )
    if not records:
        raise DataError(f"{options.root}: no training images; expected a train/ folder")

    records.sort(key=lambda record: record.label)  # evenly spaced rows then cover many classes
    rows = torch.linspace(0, len(records) - 1, options.images).long()
    selected = [records[row] for row in rows.tolist()]
    store = ImageStore.build(selected, create_preprocessing(options.size))

    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.augmentation or PIPELINES:
        pipeline = PIPELINES[name]
        augmentation = pipeline() if pipeline else None
        path = options.out / f"{name}.png"
        image = draw_preview(store.pixels, augmentation, seed=options.seed)
        image.save(path)
        print(f"Wrote {path}")
    return 0
