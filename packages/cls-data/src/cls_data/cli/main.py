"""Entry point of `cls-data`. Exit codes: 0 for success, 1 if the gate failed, 2 for errors."""

import argparse
import os
import sys
from collections.abc import Sequence

from cls_data.cli import check, convert, preview, split, stats, synth
from cls_data.errors import DataError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and return the exit code."""
    options = _create_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except DataError as error:
        print(f"cls-data: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader, such as `head`, closed the pipe. Python flushes stdout again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"cls-data: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        return 2
    return code


def _create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cls-data",
        description="Check, convert, split, and inspect annotated image folders.",
        epilog="Run `cls-data COMMAND --help` for the options of a command.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check.add_command(commands)
    convert.add_command(commands)
    split.add_command(commands)
    stats.add_command(commands)
    synth.add_command(commands)
    preview.add_command(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
