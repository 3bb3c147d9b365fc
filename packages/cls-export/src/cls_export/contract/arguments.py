"""Arguments that several commands have: a list of valid values, and the version."""

import argparse
from collections.abc import Iterable, Sequence
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


def add_version(parser: argparse.ArgumentParser, package: str) -> None:
    """Add `--version`, which prints the name and version of an installed package, and exits."""
    parser.add_argument(
        "--version", action=_PrintVersion, package=package, help="print the version and exit"
    )


def describe_version(package: str) -> str:
    """Return the name and the version of an installed package, separated by a space."""
    from importlib.metadata import version  # slow, and rarely needed

    return f"{package} {version(package)}"


class _PrintVersion(argparse.Action):
    def __init__(self, *, package: str, **settings: Any) -> None:
        super().__init__(nargs=0, **settings)
        self.package = package

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        del namespace, values, option_string
        print(describe_version(self.package))
        parser.exit()
