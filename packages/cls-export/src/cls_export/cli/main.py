"""Commands of `cls-export`. Exit codes: 0 all well, 1 some images or checks failed, 2 the call or bundle is wrong."""

import argparse
import io
import os
import sys
from collections.abc import Sequence

from cls_export.cli import convert, inference
from cls_export.contract.errors import BundleError, ImageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit code."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a file's name may have what the terminal's encoding has not
            stream.reconfigure(errors="backslashreplace")
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (
        BundleError,
        ImageError,
        OSError,
    ) as error:  # of the system, such as a folder that may not be written
        print(f"cls-export: {error}", file=sys.stderr)
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cls-export", description="Run and check exported image classifiers."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inference.add_commands(commands)
    convert.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
