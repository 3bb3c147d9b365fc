"""Print names that come from data."""

import re
import unicodedata

_CONTROL = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    r"\ud800-\udfff]"
)
"""Control characters, marks of the direction of text, and what UTF-8 cannot represent."""


def escape_control_characters(text: str) -> str:
    r"""Replace control characters by escapes such as `\x1b`, and keep line breaks.

    Otherwise a file name or label could move the cursor, recolor the terminal, or reverse the
    direction of the text.
    """
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def shorten_long_words(text: str, max_length: int = 1_000) -> str:
    """Replace the middle of each longer sequence of characters without a blank by `…`."""
    half = max_length // 2
    pattern = rf"(\S{{{half}}})\S{{{max_length - 2 * half + 1},}}(\S{{{half}}})"
    return re.sub(pattern, r"\1…\2", text)


def short_name(name: str, max_length: int = 60) -> str:
    """Return a name for one line of a table or a plot.

    Control characters and line breaks are escaped, and the middle of a longer name is left out. An
    empty name becomes `(empty)`.
    """
    text = escape_control_characters(name).replace("\n", "\\n")
    if len(text) > max_length:
        half = max_length // 2
        text = f"{text[:half]}…{text[-half:]}"
    return text or "(empty)"


def count_columns(text: str) -> int:
    """Return the width of a text in characters; those of East Asian scripts count as two."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide
