"""Parse the `key=value` arguments of the command line, with Hydra's own parser."""

import itertools
import math
import re
import shlex
from collections.abc import Iterable, Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from cls_train.errors import ConfigError

MAX_RUNS = 1000
"""Largest number of runs in one sweep. `seed=range(1,1e9)` would need all memory."""

_STRUCTURED = re.compile(r"""(^|,)\s*(\[|\{|"|'|[a-z]+\()""")
"""The start of a list, a mapping, a quoted text, or a sweep such as `range(1,3)`."""

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_QUOTES = ("'", '"')

_MAX_SHOWN = 200
"""Number of characters of an argument in a message."""


def parse_overrides(arguments: Iterable[str], loader: ConfigLoader) -> list[Override]:
    """Parse arguments.

    Args:
        arguments: Such as `seed=3`, `model=resnet34`, or `~model`.
        loader: Finds the choices that `glob()` selects.

    Raises:
        ConfigError: The message names the argument, and a quoted form if that is valid.
    """
    parser = OverridesParser.create(config_loader=loader)
    overrides = [_parse(argument, parser) for argument in arguments]
    for override in overrides:
        override.config_loader = loader
    return overrides


def split_sweep(overrides: Sequence[Override], loader: ConfigLoader) -> list[list[Override]]:
    """Return the overrides of each run of a sweep, in the order of Hydra's BasicSweeper.

    Raises:
        ConfigError: A sweep has no values, too many, or is continuous.
    """
    counts = []
    for override in overrides:
        if override.value_type is ValueType.INTERVAL_SWEEP:
            raise ConfigError(
                f"{show_argument(override)}: an interval has no values to run; "
                "list them, as in key=0.1,0.2, or use range(START,STOP,STEP)"
            )
        if override.is_sweep_override():
            counts.append(_count_values(override))

    if math.prod(counts) > MAX_RUNS:
        raise ConfigError(f"the sweep has more than {MAX_RUNS} runs; sweep over fewer values")
    try:
        (runs,) = BasicSweeper.split_arguments(list(overrides), max_batch_size=None)
    except HydraException as error:
        raise ConfigError(f"the sweep is not possible: {error}") from error
    return [parse_overrides(arguments, loader) for arguments in runs]


def check_no_sweep(overrides: Iterable[Override]) -> None:
    """Refuse several values for one key.

    Raises:
        ConfigError: The message says how to sweep, and how to write a list or text instead.
    """
    for override in overrides:
        if not override.is_sweep_override():
            continue
        argument = show_argument(override)
        message = f"{argument}: several values are several runs; add -m to run each of them"
        if override.value_type is ValueType.SIMPLE_CHOICE_SWEEP:
            key, _, value = str(override.input_line).partition("=")
            as_list = shlex.quote(f"{key}=[{value}]")
            as_text = shlex.quote(f'{key}="{value}"')
            message += f". For a list write {_shorten(as_list)}, for text {_shorten(as_text)}"
        raise ConfigError(message)


def show_argument(override: Override) -> str:
    """Return the argument as it was given, shortened."""
    return _shorten(str(override.input_line))


def _parse(argument: str, parser: OverridesParser) -> Override:
    key, _, value = argument.partition("=")
    if value.startswith("~/"):  # Hydra accepts this in quotes only
        argument = _find_quoted_form(key, value, parser) or argument
    try:
        override = parser.parse_override(argument)
        if not override.key_or_group:
            raise ConfigError(f"{_shorten(argument)}: expected KEY=VALUE, but the key is empty")
        return override
    except (HydraException, RecursionError) as error:
        cause = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(_describe_parse_error(argument, cause, parser)) from error


def _describe_parse_error(argument: str, cause: str, parser: OverridesParser) -> str:
    shown = _shorten(argument)
    key, equals, value = argument.partition("=")
    if not equals:
        return f"{shown}: expected KEY=VALUE, such as seed=2 or model=resnet34"

    unclosed = _find_unclosed(value)
    if unclosed is not None:
        return f"{shown}: the {unclosed} is not closed"
    quoted = _find_quoted_form(key, value, parser)
    if quoted is not None and len(argument) <= _MAX_SHOWN:
        return f"{shown}: quote the value, because it has special characters: {shlex.quote(quoted)}"
    return f"{shown}: cannot be read as KEY=VALUE ({_shorten(cause)})"


def _find_unclosed(value: str) -> str | None:
    """Return the bracket or quote that a list, mapping, text, or sweep lacks the end of."""
    if _STRUCTURED.search(value) is None:
        return None
    expected: list[str] = []
    quote = ""
    previous = ""
    for character in value:
        if quote:
            quote = "" if character == quote and previous != "\\" else quote
        elif character in _QUOTES:
            quote = character
        elif character in _CLOSING:
            expected.append(character)
        elif expected and character == _CLOSING[expected[-1]]:
            expected.pop()
        previous = character
    if quote:
        return f"quote {quote}"
    return f"bracket {expected[-1]}" if expected else None


def _find_quoted_form(key: str, value: str, parser: OverridesParser) -> str | None:
    """Return the argument with a quoted value, if Hydra reads the same text from it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    for candidate in (f'{key}="{value}"', f"{key}='{value}'", f'{key}="{escaped}"'):
        try:
            parsed = parser.parse_override(candidate)
        except (HydraException, RecursionError):
            continue
        if parsed.value() == value:
            return candidate
    return None


def _count_values(override: Override) -> int:
    first_values = itertools.islice(override.sweep_iterator(), MAX_RUNS + 1)
    count = sum(1 for _ in first_values)
    if count == 0:
        raise ConfigError(f"{show_argument(override)}: there are no values to run")
    return count


def _shorten(text: str) -> str:
    if len(text) <= _MAX_SHOWN:
        return text
    return f"{text[:_MAX_SHOWN]}…"
