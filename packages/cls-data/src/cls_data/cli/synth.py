"""`cls-data synth`: render synthetic numbers."""

import argparse
from typing import Any

from cls_data.cli.options import add_seed_option, describe, integer
from cls_data.cli.output import print_line
from cls_data.errors import DataError
from cls_data.gate.text import pluralize
from cls_data.synthetic.numbers import SyntheticNumbers
from cls_data.synthetic.top_up import RENDERED_FOLDER, top_up

_MAX_ROWS = 1_000_000

_EXAMPLES = """
cls-data synth numbers
cls-data synth numbers --classes 7,23 --seed 1
cls-data synth photos --up-to 300
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cls-data synth`."""
    describe(
        parser,
        _EXAMPLES,
        "Without --up-to, ROOT must be empty or missing.",
        root_help="folder to create; with --up-to, an existing data root",
    )
    text = "render training images for the classes of ROOT until each has N rows"
    parser.add_argument("--up-to", metavar="N", type=integer(1, _MAX_ROWS), help=text)
    text = "render only these classes (default: all)"
    parser.add_argument("--classes", metavar="A,B,C", help=text)
    add_seed_option(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    classes = options.classes.split(",") if options.classes else None
    if options.up_to is None:
        _render_dataset(options, classes)
    else:
        _render_rare_classes(options, classes)
    return 0


def _render_dataset(options: argparse.Namespace, classes: list[str] | None) -> None:
    settings: dict[str, Any] = {"seed": options.seed}
    if classes is not None:
        if len(classes) < 2:
            raise DataError(f"--classes {classes[0]}: expected two or more, such as 7,23")
        settings["classes"] = classes

    numbers = SyntheticNumbers(**settings)
    numbers.write(options.root)
    print_line(f"Rendered {len(numbers.classes)} classes in {options.root}")


def _render_rare_classes(options: argparse.Namespace, classes: list[str] | None) -> None:
    result = top_up(options.root, options.up_to, classes=classes, seed=options.seed)
    for label, count in result.rendered.items():
        print_line(f"{label!r}: {pluralize(count, 'image')}")
    print_line(
        f"Rendered {pluralize(result.total, 'image')} in {options.root / RENDERED_FOLDER}, "
        f"for up to {options.up_to} rows per class"
    )
    if result.skipped:
        labels = ", ".join(map(repr, result.skipped))
        print_line(f"Skipped classes that are not numbers: {labels}")
