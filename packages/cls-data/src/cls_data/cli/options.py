"""Options that several commands share."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from cls_data.annotations.quarantine import Quarantine
from cls_export.contract.preprocessing import Preprocessing

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `ArgumentParser.add_subparsers` returns; generic in type stubs only."""

Command = Callable[[argparse.Namespace], int]
"""Runs a command, and returns the exit code."""

_ROOT_HELP = "data root: the folder that holds train/, valid/, and optionally test/"
_MAX_SEED = 2**32 - 1


def create_command(
    commands: Commands,
    run: Command,
    name: str,
    summary: str,
    details: str = "",
    *,
    root_help: str = _ROOT_HELP,
) -> argparse.ArgumentParser:
    """Create the parser of a command with its ROOT argument.

    Args:
        commands: The subparsers of `cls-data`.
        run: Called with the parsed options.
        name: Name of the command.
        summary: One line, without a period.
        details: Further sentences for `--help`.
        root_help: Help text of ROOT.
    """
    parser = commands.add_parser(name, help=summary, description=f"{summary}. {details}")
    parser.set_defaults(run=run)
    parser.add_argument(
        "root",
        metavar="ROOT",
        type=Path,
        help=root_help,
    )
    return parser


def add_annotations_option(parser: argparse.ArgumentParser) -> None:
    """Add `--annotations`."""
    parser.add_argument(
        "--annotations",
        metavar="FOLDER",
        default="",
        help="read the split folders from this subfolder of ROOT, such as folds/0 (default: ROOT)",
    )


def add_quarantine_option(parser: argparse.ArgumentParser) -> None:
    """Add `--without`."""
    parser.add_argument(
        "--without",
        metavar="FILE",
        type=Path,
        help="leave out the rows in FILE, written by `cls-data check ROOT --quarantine FILE`",
    )


def add_seed_option(parser: argparse.ArgumentParser) -> None:
    """Add `--seed`."""
    parser.add_argument(
        "--seed", metavar="N", type=seed, default=0, help="random seed (default: %(default)s)"
    )


def load_quarantine(options: argparse.Namespace) -> Quarantine | None:
    """Load the file of `--without`."""
    if options.without is None:
        return None
    return Quarantine.load(options.without)


def create_preprocessing(side: int) -> Preprocessing:
    """Return a preprocessing without normalization, for commands that have no model."""
    return Preprocessing(
        size=(side, side),
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """Parse a random seed."""
    if not text.isdecimal() or int(text) > _MAX_SEED:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to {_MAX_SEED}, got {text!r}")
    return int(text)
