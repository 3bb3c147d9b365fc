"""Errors that a caller may want to catch, and the text of validation errors."""

from pydantic import ValidationError


class ImageError(ValueError):
    """An image cannot become model input.

    It is unreadable, damaged, or too large, or it has a wrong shape or dtype.
    """


class BundleError(ValueError):
    """A bundle lacks a file, is damaged, or contradicts itself."""


_PLAIN_MESSAGES = {"extra_forbidden": "unknown key", "missing": "missing"}
"""Replacements for pydantic's messages, by error type."""


def format_validation_error(error: ValidationError) -> str:
    """Return one line that names each invalid key and its problem."""
    problems = []
    for item in error.errors():
        key = ".".join(map(str, item["loc"]))
        message = _PLAIN_MESSAGES.get(item["type"], item["msg"])
        message = message.removeprefix("Value error, ")
        problems.append(f"{key}: {message}" if key else message)
    return "; ".join(problems)
