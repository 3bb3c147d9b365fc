"""Arguments of commands that have a list of valid values."""

import argparse
from collections.abc import Iterable
from typing import Any

from cls_export.contract.suggestions import did_you_mean


def add_choice(
    parser: argparse.ArgumentParser, option: str, valid: Iterable[str], **settings: Any
) -> None:
    """Add an option with a list of valid values, and suggest one for a misspelled value.

    Args:
        parser: The parser of the command.
        option: Name of the option.
        valid: The values.
        settings: Further arguments of `ArgumentParser.add_argument`.
    """
    names = tuple(valid)

    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a valid value; {did_you_mean(text, names)}"
            )
        return text

    parser.add_argument(option, type=parse, metavar=f"{{{','.join(names)}}}", **settings)
