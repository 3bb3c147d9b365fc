"""Entry point of `cls-data`."""

import argparse
import functools
import importlib
import sys
from collections.abc import Sequence

from cls_data.errors import DataError
from cls_export.contract.arguments import add_version
from cls_export.contract.commands import EXIT_CODES, run_command
from cls_export.contract.suggestions import did_you_mean

_SUMMARIES = {
    "check": "Check rows and images for problems",
    "convert": "Write JSONL annotations for class folders, a CSV file, or a Roboflow export",
    "split": "Split rows into train, valid, and test, or into folds",
    "stats": "Count the rows of each class and measure image sizes",
    "synth": "Render images of numbers: a new dataset, or rows for rare classes",
    "shard": "Write training images as shards, for data larger than the local disk",
    "preview": "Draw training images next to augmented versions of them",
}
"""The commands, which are modules beside this one. They are imported only to run, for speed."""

_EXAMPLES = """\
Examples:
  cls-data convert photos --from image-folder
  cls-data check photos
  cls-data check --help

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and return the exit code."""
    if arguments is None:
        arguments = sys.argv[1:]
    command = functools.partial(_run, list(arguments))
    return run_command("cls-data", command, wrong_input=(DataError,))


def _run(arguments: list[str]) -> int:
    try:
        options = _parse(arguments)
    except SystemExit as stop:  # after --help or --version (0), or a usage error (2)
        return stop.code if isinstance(stop.code, int) else 0
    code: int = options.run(options)
    return code


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cls-data",
        description="Check, convert, split, and inspect annotated image folders.",
        epilog=f"{_EXAMPLES}{EXIT_CODES}\nRun `cls-data COMMAND --help` for a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_version(parser, "cls-data")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    parsers = {}
    for name, summary in _SUMMARIES.items():
        parsers[name] = commands.add_parser(
            name,
            help=summary,
            description=f"{summary}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    given = arguments[0] if arguments else ""
    if given in ("", "-h", "--help", "--version"):
        return parser.parse_args(arguments)  # exits
    if given not in parsers:
        parser.error(f"unknown command {given!r}; {did_you_mean(given, _SUMMARIES)}")

    module = importlib.import_module(f"cls_data.cli.{given}")
    module.add_arguments(parsers[given])
    parsers[given].set_defaults(run=module.run)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        _report_unknown(parsers[given], unknown[0])
    return options


def _report_unknown(parser: argparse.ArgumentParser, argument: str) -> None:
    """Exit with a message about an argument that the command does not have."""
    option, _, _ = argument.partition("=")
    if not option.startswith("-"):
        parser.error(f"unexpected argument {argument!r}")
    valid = [name for name in parser._option_string_actions if name.startswith("--")]
    parser.error(f"unknown option {option!r}; {did_you_mean(option, valid)}")


if __name__ == "__main__":
    sys.exit(main())
