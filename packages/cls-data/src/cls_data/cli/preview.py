"""`cls-data preview`: draw augmented images."""

import argparse
import io
import tempfile
from pathlib import Path

from cls_data.cli.options import (
    add_annotations_option,
    add_layout_option,
    add_quarantine_option,
    add_seed_option,
    create_preprocessing,
    describe,
    integer,
    load_quarantine,
    path,
    refuse_annotations_of_folders,
)
from cls_data.cli.output import print_line
from cls_data.data_source import read_data
from cls_data.errors import DataError
from cls_export.contract.arguments import add_choice
from cls_export.contract.files import write_atomically

AUGMENTATIONS = ("none", "light", "broadcast", "photo")
"""Names of `cls_data.augmentation.preview.PIPELINES`, which needs PyTorch."""

_MAX_IMAGES = 200
_MAX_SIDE = 1024  # px

_EXAMPLES = """
cls-data preview photos
cls-data preview photos --augmentation broadcast --out pictures
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cls-data preview`."""
    describe(parser, _EXAMPLES)
    add_annotations_option(parser)
    add_layout_option(parser)
    add_quarantine_option(parser)
    text = "augmentation to draw; can be repeated (default: all)"
    add_choice(parser, "--augmentation", AUGMENTATIONS, action="append", help=text)
    text = "write AUGMENTATION.png files to this folder (default: a new temporary folder)"
    parser.add_argument("--out", metavar="FOLDER", type=path, help=text)
    parser.add_argument(
        "--size",
        metavar="PIXELS",
        type=integer(1, _MAX_SIDE),
        default=64,
        help="side of the resized images (default: %(default)s)",
    )
    text = "number of images (default: %(default)s)"
    parser.add_argument("--images", metavar="N", type=integer(1, _MAX_IMAGES), default=8, help=text)
    add_seed_option(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    refuse_annotations_of_folders(options)
    data = read_data(
        options.root,
        layout=options.layout,
        annotations=options.annotations,
        quarantine=load_quarantine(options),
    )
    records = data.get("train", [])
    if not records:
        raise DataError(f"{options.root}: no training images; expected a train/ folder")

    # Imported late: PyTorch takes seconds to load, and errors in the rows come first.
    import torch

    from cls_data.augmentation.preview import PIPELINES, draw_preview
    from cls_data.images.store import ImageStore

    records.sort(key=lambda record: record.label)  # evenly spaced rows then cover many classes
    rows = torch.linspace(0, len(records) - 1, options.images).long()
    selected = [records[row] for row in rows.tolist()]
    store = ImageStore.build(selected, create_preprocessing(options.size))

    folder = _create_folder(options.out)
    for name in options.augmentation or AUGMENTATIONS:
        pipeline = PIPELINES[name]
        augmentation = pipeline() if pipeline else None
        file = folder / f"{name}.png"
        image = draw_preview(store.pixels, augmentation, seed=options.seed)
        content = io.BytesIO()
        image.save(content, format="PNG")
        write_atomically(file, content.getvalue())
        print_line(f"Wrote {file}")
    return 0


def _create_folder(chosen: Path | None) -> Path:
    if chosen is None:
        return Path(tempfile.mkdtemp(prefix="cls-data-preview-"))
    folder = chosen.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
