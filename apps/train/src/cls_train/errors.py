"""Errors that a user can act on; everything else ends in a traceback."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A setting that cannot be. The message gives its key path, what was given, and what to do."""


class IdentityError(RuntimeError):
    """Weights that did not earn the figure that was logged for them."""


class RunError(RuntimeError):
    """A run that cannot be started, resumed or evaluated as asked."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Name the nearest known word, and all of them where they are few."""
    words = sorted(known)
    nearest = difflib.get_close_matches(given, words, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return (
        f"{hint}Known are {', '.join(words)}"
        if len(words) <= 40
        else hint.strip() or "see --cfg job"
    )
