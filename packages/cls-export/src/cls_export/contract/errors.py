"""Errors that a caller may want to catch, and the text of validation errors."""

from pydantic import ValidationError


class ImageError(ValueError):
    """An image cannot become model input.

    It is unreadable, damaged, or too large, or it has a wrong shape or dtype.
    """


class BundleError(ValueError):
    """A bundle lacks a file, is damaged, or contradicts itself."""


def format_validation_error(error: ValidationError, *, root: str = "the whole file") -> str:
    """Return one line that names each invalid key and its problem.

    Args:
        error: A pydantic error.
        root: The name of the top level, for errors that belong to no key.
    """
    lines = []
    for item in error.errors():
        location = ".".join(map(str, item["loc"]))
        key = location or root
        lines.append(f"{key}: {item['msg']}")
    return "; ".join(lines)
