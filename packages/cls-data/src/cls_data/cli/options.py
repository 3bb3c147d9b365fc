"""Options that several commands share. Importing this module loads only the standard library."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cls_data.paths import expand_path
from cls_export.contract.arguments import add_choice
from cls_export.contract.commands import EXIT_CODES

if TYPE_CHECKING:
    from cls_data.annotations.quarantine import Quarantine
    from cls_export.contract.preprocessing import Preprocessing

MAX_WORKERS = 1024

_ROOT_HELP = "data root: the folder that holds train/, valid/, and optionally test/"
_MAX_SEED = 2**32 - 1


def describe(
    parser: argparse.ArgumentParser,
    examples: str,
    details: str = "",
    *,
    exit_codes: str = EXIT_CODES,
    root_help: str = _ROOT_HELP,
) -> None:
    """Add the ROOT argument, and complete the help text of a command.

    Args:
        parser: The parser of the command, whose description is the summary.
        examples: Command lines, one a line.
        details: Further sentences for the description, wrapped.
        exit_codes: The meaning of the exit codes.
        root_help: Help text of ROOT.
    """
    if details:
        parser.description = f"{parser.description}\n{details}"
    lines = [f"  {example}" for example in examples.strip().splitlines()]
    parser.epilog = "\n".join(["Examples:", *lines, "", exit_codes])
    parser.add_argument("root", metavar="ROOT", type=path, help=root_help)


def add_annotations_option(parser: argparse.ArgumentParser) -> None:
    """Add `--annotations`."""
    parser.add_argument(
        "--annotations",
        metavar="FOLDER",
        default="",
        help="read the split folders from this subfolder of ROOT, such as folds/0 (default: ROOT)",
    )


def add_layout_option(parser: argparse.ArgumentParser) -> None:
    """Add `--layout`."""
    add_choice(
        parser,
        "--layout",
        ("auto", "jsonl", "folder"),
        default="auto",
        help="jsonl reads annotations, folder reads class folders, and auto reads annotations if "
        "there are any (default: %(default)s)",
    )


def add_quarantine_option(parser: argparse.ArgumentParser) -> None:
    """Add `--without`."""
    parser.add_argument(
        "--without",
        metavar="FILE",
        type=path,
        help="leave out the rows in FILE, written by `cls-data check ROOT --quarantine FILE`",
    )


def add_seed_option(parser: argparse.ArgumentParser) -> None:
    """Add `--seed`."""
    parser.add_argument(
        "--seed",
        metavar="N",
        type=integer(0, _MAX_SEED),
        default=0,
        help="random seed (default: %(default)s)",
    )


def refuse_annotations_of_folders(options: argparse.Namespace) -> None:
    """Raise a `DataError` for `--annotations` with `--layout folder`."""
    from cls_data.errors import DataError

    if options.annotations and options.layout == "folder":
        raise DataError(
            "--annotations cannot be combined with --layout folder: class folders have no "
            "annotations; drop one of them"
        )


def load_quarantine(options: argparse.Namespace) -> "Quarantine | None":
    """Load the file of `--without`."""
    from cls_data.annotations.quarantine import Quarantine

    if options.without is None:
        return None
    return Quarantine.load(options.without)


def create_preprocessing(side: int, **settings: Any) -> "Preprocessing":
    """Return a preprocessing without normalization, for commands that have no model."""
    from cls_export.contract.preprocessing import Preprocessing

    return Preprocessing(
        size=(side, side),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        **settings,
    )


def path(text: str) -> Path:
    """Parse a path; `~` is the home folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got an empty text")
    try:
        return expand_path(Path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    """Return a parser of integers in a range."""

    def parse(text: str) -> int:
        is_short = len(text) <= len(str(maximum))
        value = int(text) if is_short and text.isdecimal() else -1
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(
                f"expected an integer from {minimum} to {maximum}, got {text[:40]!r}"
            )
        return value

    return parse
