"""The schema of annotation rows, and messages about rows that break it."""

import json
import re
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue, ValidationError

MAX_LABEL_LENGTH = 1000
"""Longer texts are no class names."""

CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Not allowed in labels: numpy string arrays drop a trailing NUL, a line break splits a table, and
others control the terminal."""

Label = Annotated[
    str,
    Field(
        validation_alias=AliasChoices("suffix", "label"),
        pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$",
        max_length=MAX_LABEL_LENGTH,
    ),
]

_KEY = re.compile(rb'"\s*:')
"""Matches the end of every JSON key, and sometimes text in a string.

If there are no more matches than parsed keys, no key is repeated, and the slower exact check is
skipped.
"""


_LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
"""An escape of one UTF-16 code unit of a pair."""


class Row(BaseModel):
    """Schema of one line. `label` is another name for `suffix`; `prefix` is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    image: str = Field(min_length=1)
    suffix: Label
    prefix: str | None = None
    group: str | None = None
    metadata: dict[str, JsonValue] | None = None


class RowError(ValueError):
    """A line does not match the schema."""


def parse_row(text: bytes, *, can_quote: bool = True) -> Row:
    """Parse one line of an annotation file.

    Args:
        text: The line, without line ends.
        can_quote: Whether a message may quote the line. The content of a file outside the data
            root must not appear in messages.

    Raises:
        RowError: The line does not match the schema.
    """
    try:
        row = Row.model_validate_json(text)
        num_keys = len(row.model_fields_set) + len(row.metadata or ())
        if len(_KEY.findall(text)) > num_keys:
            json.loads(text, object_pairs_hook=_check_keys_are_unique)
    except ValidationError as error:
        problems = error.errors()
        if can_quote:
            reasons = [_describe_problem(problem, text) for problem in problems]
        else:
            reasons = [_describe_without_text(problem) for problem in problems]
        raise RowError("; ".join(reasons)) from error
    except _RepeatedKeyError as error:
        key = f"key {error.args[0]!r}" if can_quote else "a key"
        raise RowError(f"{key} is given more than once") from error
    return row


class _RepeatedKeyError(Exception):
    """A JSON object has a key twice. JSON parsers silently use the last value."""


def _check_keys_are_unique(pairs: list[tuple[str, Any]]) -> None:
    keys = set()
    for key, _ in pairs:
        if key in keys:
            raise _RepeatedKeyError(key)
        keys.add(key)


def _describe_problem(problem: Any, text: bytes) -> str:
    """Describe one pydantic error of a row: what was given, and what was expected."""
    kind = problem["type"]
    given = problem["input"]
    key = ".".join(map(str, problem["loc"]))

    if kind == "json_invalid":
        start = text[:60].decode(errors="replace").strip()
        return f"{_describe_encoding(text) or _describe_json(problem)}: {start}"

    if kind == "extra_forbidden" and key == "label":
        return "keys 'suffix' and 'label' are both given, but mean the same; remove one of them"
    if kind == "extra_forbidden":
        return f"unknown key {key!r}; valid keys: image, suffix (or label), prefix, group, metadata"

    if kind == "missing":
        return f"key {key!r} is missing"
    if kind == "string_type" and isinstance(given, int | float):
        value = json.dumps(given)
        stated = value if isinstance(given, bool) else f"the number {given}"
        expected = "a group" if key == "group" else "a class name"
        return f'{key} is {stated}, but {expected} is a string; write "{value}"'

    if kind == "string_pattern_mismatch":
        return f"{key} contains a control character: {given!r:.60}"
    return f"{key or 'the row'}: {problem['msg']}, got {given!r:.60}"


def _describe_without_text(problem: Any) -> str:
    """Describe a problem without any part of the line, except the keys of the schema."""
    keys = problem["loc"][:1]
    if keys and keys[0] in (*Row.model_fields, "label"):
        return f"{keys[0]}: {problem['msg']}"
    return "not a row of annotations (its text is not shown: the file is outside the data root)"


def _describe_json(problem: Any) -> str:
    return f"not valid JSON ({problem['ctx']['error']})"


def _describe_encoding(text: bytes) -> str | None:
    """Return why a line is not text that JSON may consist of, or None."""
    if b"\0" in text:
        return "not text (it has NUL bytes); save the file as UTF-8"
    try:
        text.decode()
    except UnicodeDecodeError as error:
        byte = text[error.start]
        return f"not UTF-8 (byte 0x{byte:02x} at position {error.start + 1}); save it as UTF-8"
    if _LONE_SURROGATE.search(text):
        return "not valid JSON (an escape such as \\ud800 stands for half of a character)"
    if b"\r" in text:
        return "not valid JSON (lines end in CR only); save the file with LF line ends"
    return None
