"""Errors that a caller may want to catch, and the text of validation errors."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class ImageError(ValueError):
    """An image cannot become model input.

    It is unreadable, damaged, or too large, or it has a wrong shape or dtype.
    """


class ImageTooLargeError(ImageError):
    """An image has more pixels than the limit."""


class BundleError(ValueError):
    """A bundle lacks a file, is damaged, or contradicts itself."""


class RemoteBundleError(ValueError):
    """A reference to a shared bundle is invalid, names nothing, or access is denied."""


class TransferError(Exception):
    """A bundle was not pushed or pulled, because the network or a server failed.

    Attributes:
        is_temporary: Whether trying again may help.
        wait_seconds: How long the server asks to wait before; None if it does not say so.
    """

    def __init__(
        self, message: str, *, is_temporary: bool = False, wait_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.is_temporary = is_temporary
        self.wait_seconds = wait_seconds


class VerificationError(Exception):
    """This machine computes other predictions for a bundle's golden images than training did."""


class ConversionError(Exception):
    """A bundle was not converted, because its model would lose too much."""


class MissingExtraError(ImportError):
    """A package of an optional dependency group, such as `cls-export[torch]`, is missing."""


_PLAIN_MESSAGES = {"extra_forbidden": "unknown key", "missing": "missing"}
"""Replacements for pydantic's messages, by error type."""

_MAX_PROBLEMS = 5
_MAX_COLLECTED = 1000
"""With more errors, reading all of them takes seconds and gigabytes."""
_MAX_PROBLEM_CHARACTERS = 300


def format_validation_error(error: "ValidationError") -> str:
    """Return one line that names the first few invalid keys and their problems."""
    count = error.error_count()
    if count > _MAX_COLLECTED:
        return f"{count:,} keys or values are invalid"

    problems = []
    for item in error.errors()[:_MAX_PROBLEMS]:
        key = ".".join(map(str, item["loc"]))
        message = _PLAIN_MESSAGES.get(item["type"], item["msg"])
        message = message.removeprefix("Value error, ")
        problem = f"{key}: {message}" if key else message
        problems.append(_shorten(problem))
    if count > _MAX_PROBLEMS:
        problems.append(f"and {count - _MAX_PROBLEMS} more")
    return "; ".join(problems)


def _shorten(text: str) -> str:
    if len(text) <= _MAX_PROBLEM_CHARACTERS:
        return text
    return f"{text[:_MAX_PROBLEM_CHARACTERS]}…"
