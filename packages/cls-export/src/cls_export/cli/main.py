"""The `cls-export` command."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

from cls_export.cli.arguments import COMMANDS, Command
from cls_export.contract.arguments import add_version
from cls_export.contract.commands import EXIT_CODES, run_command
from cls_export.contract.errors import (
    BundleError,
    ConversionError,
    ImageError,
    MissingExtraError,
    RemoteBundleError,
    TransferError,
    VerificationError,
)
from cls_export.contract.suggestions import did_you_mean

_EPILOG = f"COMMAND --help describes the arguments of a command.\n\n{EXIT_CODES}"
_EXAMPLE = "cls-export predict runs/NAME/export crops/"

_RENAMED_COMMANDS = {"half": "float16"}
_RENAMED_OPTIONS = {
    "--calibrate": "--calibration-images",
    "--judge": "--eval-images",
    "--largest-loss": "--max-accuracy-drop",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code of the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(
        "cls-export",
        lambda: _run(given),
        wrong_input=(BundleError, ImageError, MissingExtraError, RemoteBundleError),
        failed=(ConversionError, TransferError, VerificationError),
    )


def _run(arguments: list[str]) -> int:
    parser, command_parsers = _build_parsers()
    _check_names(parser, arguments)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        _refuse_unknown(command_parsers[options.command], unknown)

    # The modules of the handlers load onnxruntime, which a help text does not need.
    module, function = COMMANDS[options.command].handler
    handler: Callable[[argparse.Namespace], int] = getattr(
        importlib.import_module(f"cls_export.cli.{module}"), function
    )
    return handler(options)


def _build_parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(
        prog="cls-export",
        description="Run, check, and convert exported image classifiers.",
        epilog=f"Example: {_EXAMPLE}\n\n{_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(parser, "cls-export")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    command_parsers = {}
    for name, command in COMMANDS.items():
        command_parsers[name] = commands.add_parser(
            name,
            help=command.summary,
            description=command.description,
            epilog=_describe_use(command),
            formatter_class=_HelpFormatter,
        )
        command.add_arguments(command_parsers[name])
    return parser, command_parsers


class _HelpFormatter(argparse.HelpFormatter):
    """Wraps descriptions, but keeps the lines of the example and the exit codes."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = []
        for paragraph in text.split("\n\n"):
            filled.append(super()._fill_text(paragraph, width, indent))
        return "\n\n".join(filled)


def _describe_use(command: Command) -> str:
    return f"Example: {command.example}\n\n{EXIT_CODES}"


def _check_names(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    command = arguments[0] if arguments else ""
    if command in _RENAMED_COMMANDS:
        parser.error(f"{command} was renamed to {_RENAMED_COMMANDS[command]}")
    if command and not command.startswith("-") and command not in COMMANDS:
        parser.error(f"there is no command {command!r}; {did_you_mean(command, COMMANDS)}")

    for argument in arguments:
        option = argument.partition("=")[0]
        if option in _RENAMED_OPTIONS:
            parser.error(f"{option} was renamed to {_RENAMED_OPTIONS[option]}")


def _refuse_unknown(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> None:
    given = unknown[0].partition("=")[0]
    if not given.startswith("-"):
        parser.error(f"unexpected argument {given!r}")
    options = [text for action in parser._actions for text in action.option_strings]
    long_options = [text for text in options if text.startswith("--")]
    parser.error(f"there is no option {given!r}; {did_you_mean(given, long_options)}")


if __name__ == "__main__":
    sys.exit(main())
