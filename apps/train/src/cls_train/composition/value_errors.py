"""Describe the errors of pydantic in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any

_INTEGER = "an integer"
_NUMBER = "a number"
_BOOLEAN = "true or false"
_TEXT = "text"
_LIST = "a list"
_MAPPING = "a mapping"
_TARGET = "a mapping with a _target_"

EXPECTED = {
    "bool_parsing": _BOOLEAN,
    "bool_type": _BOOLEAN,
    "dict_type": _MAPPING,
    "enum": "one of: {expected}",
    "finite_number": "a finite number",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "frozen_set_type": _LIST,
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "int_from_float": _INTEGER,
    "int_parsing": _INTEGER,
    "int_parsing_size": "a number of at most 64 bits",
    "int_type": _INTEGER,
    "is_instance_of": _TARGET,
    "iterable_type": _LIST,
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "list_type": _LIST,
    "literal_error": "{expected}",
    "mapping_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "model_type": _MAPPING,
    "multiple_of": "a multiple of {multiple_of}",
    "none_required": "null",
    "path_type": "a path",
    "set_type": _LIST,
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_long": "text of at most {max_length} characters",
    "string_too_short": "text of at least {min_length} characters",
    "string_type": _TEXT,
    "string_unicode": "text in UTF-8",
    "too_long": "a list of at most {max_length} values",
    "too_short": "a list of at least {min_length} values",
    "tuple_type": _LIST,
}
"""What a value should be, by pydantic's type of error. The fields are those of its context."""

_MAX_FIELDS = 7
"""Of a longer section, a message lists the first keys."""

_MODEL_TYPES = ("model_type", "model_attributes_type")

_EXAMPLES = {
    "monitor": "monitor.metric=valid_top1",
    "run": "run.name=first",
    "stages": "stages.report=false",
}
"""A setting of each section, for whoever gives the section a single value."""


def describe_value_error(item: Mapping[str, Any], path: str, fields: Sequence[str] = ()) -> str:
    """Return one line: the key, what was expected, and what was given.

    Args:
        item: One of the errors of a `ValidationError`.
        path: Key path of the value.
        fields: Keys of the model at the path, if there is one.
    """
    kind, value = item["type"], item["input"]
    if kind == "missing":
        return f"{path} is required; set it with {path}=VALUE"
    if kind in ("value_error", "assertion_error"):
        return f"{path}: {_describe_cause(item)}"
    if kind in _MODEL_TYPES and fields:
        example = _EXAMPLES.get(path, f"{path}.{fields[0]}=VALUE")
        names = _join(fields) if len(fields) <= _MAX_FIELDS else f"{', '.join(fields[:3])}, …"
        return f"{path}: expected {names}, got {value!r:.200}; set {example}"

    expected = EXPECTED.get(kind)
    if expected is None:
        return f"{path}: {item['msg']}, got {value!r:.200}"
    context = item.get("ctx", {})
    return f"{path}: expected {expected.format_map(context)}, got {value!r:.200}"


def _describe_cause(item: Mapping[str, Any]) -> str:
    """Return the message of a validator, and the value unless it is a whole section."""
    value = item["input"]
    cause = str(item.get("ctx", {}).get("error") or item["msg"])
    shown = f"{value!r:.200}"
    if isinstance(value, (Mapping, list, tuple)) or shown in cause:
        return cause
    return f"{cause}, got {shown}"


def _join(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    separator = " and " if len(names) == 2 else ", and "
    return f"{', '.join(names[:-1])}{separator}{names[-1]}"
