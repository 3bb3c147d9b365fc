"""Print names that come from data."""

import re

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def escape_control_characters(text: str) -> str:
    r"""Replace control characters by escapes such as `\x1b`, and keep line breaks.

    Otherwise a file name or label could move the cursor, recolor the terminal, or reverse the
    direction of the text.
    """
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)
