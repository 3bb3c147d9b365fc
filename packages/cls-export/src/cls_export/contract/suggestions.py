"""Suggestions for misspelled names."""

import difflib
from collections.abc import Iterable

_MAX_LISTED = 40
"""Longer lists of valid names are left out of a message."""


def closest_names(
    given: str, valid: Iterable[str], *, limit: int = 1, cutoff: float = 0.5
) -> list[str]:
    """Return the valid names most similar to the given one, best first.

    Args:
        given: The misspelled name.
        valid: The names to choose from.
        limit: The largest number of suggestions.
        cutoff: The smallest similarity, 0 to 1; 0 always suggests something.
    """
    names = sorted(valid)
    return difflib.get_close_matches(given, names, n=limit, cutoff=cutoff)


def did_you_mean(given: str, valid: Iterable[str]) -> str:
    """Return a hint that names the closest valid name, and all of them if there are few."""
    names = sorted(valid)
    closest = closest_names(given, names)
    hint = f"did you mean {closest[0]!r}? " if closest else ""

    if len(names) <= _MAX_LISTED:
        return f"{hint}Valid names: {', '.join(names)}"
    return hint.strip()
