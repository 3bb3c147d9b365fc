"""Comparison of class names that look alike."""

import difflib
import re
import unicodedata
from collections.abc import Iterable

_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]")
"""Soft hyphens, zero-width characters, direction marks, and variation selectors."""

_MIN_SIMILARITY = 0.75
_MAX_COMPARISONS = 50_000


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


class LabelHints:
    """Suggests the known label most like an unknown one; numbers only if they look alike.

    "7" is no misspelling of "17". After 50,000 comparisons of words, which take about two seconds,
    labels that differ in more than case, blanks, and Unicode form get no hint.

    Args:
        known: The labels that exist.
    """

    def __init__(self, known: Iterable[str]) -> None:
        names = sorted(known)
        self._by_key = {label_key(name): name for name in names}
        self._words = [name for name in self._by_key if not name.isdigit()]
        self._num_comparisons = 0
        self._hints: dict[str, str] = {}

    def suggest(self, label: str) -> str:
        """Return a hint to append to a message, such as "; did you mean 'shoe'?", or ""."""
        if label not in self._hints:
            self._hints[label] = self._find(label)
        return self._hints[label]

    def _find(self, label: str) -> str:
        key = label_key(label)
        if key in self._by_key:
            name = self._by_key[key]
            return (
                f"; did you mean {quote_label(name)}? It differs only in letter case, blanks, or "
                "Unicode form"
            )
        if key.isdigit() or not self._words or self._num_comparisons >= _MAX_COMPARISONS:
            return ""
        self._num_comparisons += len(self._words)
        closest = difflib.get_close_matches(key, self._words, n=1, cutoff=_MIN_SIMILARITY)
        if not closest:
            return ""
        return f"; did you mean {self._by_key[closest[0]]!r}?"
