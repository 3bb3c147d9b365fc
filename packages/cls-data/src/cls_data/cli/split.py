"""`cls-data split`: write new splits or folds."""

import argparse
from typing import Any

from cls_data.annotations.reading import SPLITS, Split
from cls_data.cli.options import (
    add_layout_option,
    add_quarantine_option,
    add_seed_option,
    describe,
    integer,
    load_quarantine,
)
from cls_data.cli.output import print_line
from cls_data.errors import DataError
from cls_data.gate.text import count_classes, pluralize
from cls_data.splits.splitting import SplitResult, write_folds, write_splits

_DEFAULT_SHARES = "0.8,0.1,0.1"
_MAX_FOLDS = 1000

_EXAMPLES = """
cls-data split photos
cls-data split photos --shares 0.7,0.15,0.15 --group-by game
cls-data split photos --folds 5 --keep-test
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cls-data split`."""
    describe(
        parser,
        _EXAMPLES,
        "Classes are spread evenly, and rows of one group or one image stay together.\n"
        "Existing annotations remain.",
    )
    text = f"shares of train, valid, and optionally test (default: {_DEFAULT_SHARES})"
    parser.add_argument("--shares", metavar="S,S,S", help=text)
    text = "write K folds for cross-validation instead"
    parser.add_argument("--folds", metavar="K", type=integer(2, _MAX_FOLDS), help=text)
    text = "subfolder of ROOT to write to (default: splits/seed-N, or folds)"
    parser.add_argument("--name", metavar="FOLDER", help=text)
    text = "keep rows with the same value of this metadata key together"
    parser.add_argument("--group-by", metavar="KEY", help=text)
    text = "leave the test split unchanged and split only the other rows"
    parser.add_argument("--keep-test", action="store_true", help=text)
    add_layout_option(parser)
    add_quarantine_option(parser)
    add_seed_option(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    result = _split(options)
    for folder, class_counts in result.counts.items():
        rows = pluralize(sum(class_counts.values()), "row")
        print_line(f"Wrote {folder}: {rows} of {count_classes(len(class_counts))}")
    for note in result.notes:
        print_line(note)
    print_line(f"Train with: data=jsonl data.annotations={result.names[0]}")
    return 0


def _split(options: argparse.Namespace) -> SplitResult:
    settings: dict[str, Any] = {
        "seed": options.seed,
        "group_by": options.group_by,
        "keep_test": options.keep_test,
        "quarantine": load_quarantine(options),
        "layout": options.layout,
    }
    if options.name is not None:
        settings["name"] = options.name

    if options.folds is None:
        shares = _parse_shares(options.shares or _DEFAULT_SHARES)
        return write_splits(options.root, shares, **settings)

    if options.shares is not None:
        raise DataError("--folds cannot be combined with --shares: folds are equal; drop --shares")
    return write_folds(options.root, options.folds, **settings)


def _parse_shares(text: str) -> dict[Split, float]:
    try:
        shares = [float(share) for share in text.split(",")]
    except ValueError:
        shares = []

    if len(shares) not in (2, 3):
        raise DataError(f"--shares {text}: expected two or three numbers, such as 0.8,0.1,0.1")
    return dict(zip(SPLITS, shares, strict=False))
