"""The `cls-export` command.

Exit codes: 0 for success, 1 if some images or checks failed, 2 for wrong arguments or a bad bundle.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence

from cls_export.cli import convert, inference
from cls_export.contract.errors import BundleError, ImageError

_RENAMED_COMMANDS = {"half": "float16"}
_RENAMED_OPTIONS = {
    "--calibrate": "--calibration-images",
    "--judge": "--eval-images",
    "--largest-loss": "--max-accuracy-drop",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code of the process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = _build_parser()
    _check_renamed(parser, arguments)
    options = parser.parse_args(arguments)

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name may have characters that the terminal's encoding lacks.
            stream.reconfigure(errors="backslashreplace")

    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    # ImportError: cls-export[torch] is not installed. OSError: a folder cannot be written.
    except (BundleError, ImageError, ImportError, OSError) as error:
        print(f"cls-export: {error}", file=sys.stderr)
        return 2
    return code


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cls-export",
        description="Run, check, and convert exported image classifiers.",
        epilog="Exit codes: 0 for success, 1 if some images or checks failed, 2 for wrong "
        "arguments or a bad bundle. COMMAND --help describes the arguments of a command.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inference.add_commands(commands)
    convert.add_commands(commands)
    return parser


def _check_renamed(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    command = arguments[0] if arguments else ""
    if command in _RENAMED_COMMANDS:
        parser.error(f"{command} was renamed to {_RENAMED_COMMANDS[command]}")

    for argument in arguments:
        option = argument.partition("=")[0]
        if option in _RENAMED_OPTIONS:
            parser.error(f"{option} was renamed to {_RENAMED_OPTIONS[option]}")


if __name__ == "__main__":
    sys.exit(main())
