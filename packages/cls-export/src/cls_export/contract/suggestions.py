"""Suggestions for misspelled names."""

import difflib
from collections.abc import Iterable

_MAX_LISTED = 40
"""Longer lists of valid names are left out of a message."""


_MIN_SIMILARITY = 0.5
"""Smallest ratio of `difflib` at which a name is suggested."""


def did_you_mean(given: str, valid: Iterable[str]) -> str:
    """Return a hint to append to a message after a semicolon.

    It names the closest valid name, in any letter case, and lists all of them if there are few.
    """
    names = sorted(valid)
    names_list = ", ".join(names)
    is_short = len(names) <= _MAX_LISTED
    by_key = {name.casefold(): name for name in names}
    closest = difflib.get_close_matches(given.casefold(), by_key, n=1, cutoff=_MIN_SIMILARITY)
    if not closest:
        if is_short:
            return f"valid names: {names_list}"
        return f"none of the {len(names)} valid names is similar"
    hint = f"did you mean {by_key[closest[0]]!r}?"
    if is_short:
        hint += f" Valid names: {names_list}"
    return hint
