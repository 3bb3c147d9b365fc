"""Comparison of class names that look alike."""

import difflib
import re
import unicodedata
from collections.abc import Iterable

_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]")
"""Soft hyphens, zero-width characters, direction marks, and variation selectors."""

_MIN_SIMILARITY = 0.75


def label_key(label: str) -> str:
    """Return what labels have in common that differ only in letter case, blanks, or Unicode form.

    Runs of blanks count as one, and blanks at the ends and invisible characters do not count.
    Digits are compared as they are: "007" and "7" are two classes.
    """
    visible = _INVISIBLE.sub("", label)
    composed = unicodedata.normalize("NFC", visible)
    folded = composed.casefold()
    words = unicodedata.normalize("NFC", folded).split()
    return " ".join(words)


def quote_label(label: str) -> str:
    """Quote a label; with escapes if another label could look the same."""
    forms = {unicodedata.normalize(form, label) for form in ("NFC", "NFD")}
    blanks = {character for character in label if character.isspace()}
    is_distinct = len(forms) == 1 and blanks <= {" "} and not _INVISIBLE.search(label)
    return repr(label) if is_distinct else ascii(label)


def suggest_label(label: str, known: Iterable[str]) -> str:
    """Return a hint that names the known label most like an unknown one, or "".

    The hint is appended to a message, such as "; did you mean 'shoe'?". Numbers get a hint only if
    they are equal apart from blanks, because "7" is no misspelling of "17".
    """
    names = sorted(known)
    by_key = {label_key(name): name for name in names}
    key = label_key(label)
    if key in by_key:
        name = by_key[key]
        return (
            f"; did you mean {quote_label(name)}? It differs only in letter case, blanks, or "
            "Unicode form"
        )
    words = [name for name in by_key if not name.isdigit()]
    if key.isdigit() or not words:
        return ""
    closest = difflib.get_close_matches(key, words, n=1, cutoff=_MIN_SIMILARITY)
    if not closest:
        return ""
    return f"; did you mean {by_key[closest[0]]!r}?"
