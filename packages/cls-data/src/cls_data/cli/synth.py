"""`cls-data synth`: render synthetic numbers."""

import argparse
from typing import Any

from pydantic import ValidationError

from cls_data.cli.options import Commands, add_seed_option, create_command, positive_int
from cls_data.errors import DataError
from cls_data.synthetic.numbers import SyntheticNumbers
from cls_data.synthetic.top_up import FOLDER, top_up
from cls_export.contract.errors import format_validation_error


def add_command(commands: Commands) -> None:
    """Add the parser of `cls-data synth`."""
    parser = create_command(
        commands,
        "synth",
        "Render images of numbers: a new data set, or rows for rare classes",
        "Without --up-to, ROOT must be empty or missing.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--up-to",
        metavar="N",
        type=positive_int,
        help="render training images for the classes of ROOT until each has N rows",
    )
    parser.add_argument(
        "--classes", metavar="A,B,C", help="render only these classes (default: all)"
    )
    add_seed_option(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    classes = options.classes.split(",") if options.classes else None
    if options.up_to is None:
        _render_data_set(options, classes)
    else:
        _render_rare_classes(options, classes)
    return 0


def _render_data_set(options: argparse.Namespace, classes: list[str] | None) -> None:
    settings: dict[str, Any] = {"seed": options.seed}
    if classes is not None:
        settings["classes"] = classes

    try:
        numbers = SyntheticNumbers(**settings)
    except ValidationError as error:
        raise DataError(f"invalid options: {format_validation_error(error)}") from error

    numbers.write(options.root)
    print(f"Rendered {len(numbers.classes)} classes in {options.root}")


def _render_rare_classes(options: argparse.Namespace, classes: list[str] | None) -> None:
    result = top_up(options.root, options.up_to, classes=classes, seed=options.seed)
    for label, count in result.rendered.items():
        print(f"{label!r}: {count} images")

    print(
        f"Rendered {result.total} images in {options.root / FOLDER}, "
        f"for up to {options.up_to} rows per class"
    )

    if result.skipped:
        labels = ", ".join(map(repr, result.skipped))
        print(f"Skipped classes that are not numbers: {labels}")
