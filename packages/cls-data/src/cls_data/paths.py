"""Paths as a user writes them."""

from pathlib import Path

from cls_export.contract.files import refuse_long_names


def expand_path(path: Path) -> Path:
    """Replace `~` at the start of a path by the home folder.

    Raises:
        ValueError: The path has a NUL character or a name of over 255 bytes, leads through a link
            to itself, or names the home folder of an unknown user.
    """
    try:
        expanded = path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{str(path)!r} names the home folder of an unknown user") from error
    refuse_long_names(expanded)
    try:
        expanded.resolve()
    except RuntimeError as error:
        raise ValueError(f"{str(path)!r} leads through a link to itself") from error
    return expanded
