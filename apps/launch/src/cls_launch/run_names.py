"""Names and arguments of the jobs of a sweep."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cls_launch.errors import LaunchError
from cls_launch.settings import MAX_NAME, check_name
from cls_train.composition.compose import ComposedRun
from cls_train.composition.config import RunConfig

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class RunArguments:
    """The arguments of one run.

    Attributes:
        all: All arguments as they were given, with one value for each swept key.
        swept: Those of the swept keys.
    """

    all: tuple[str, ...]
    swept: tuple[str, ...]


def split_arguments(run: ComposedRun, fixed: Mapping[str, str]) -> RunArguments:
    """Return the arguments of a run; those that are not swept are as they were given.

    Args:
        run: A run of the sweep.
        fixed: Key → argument with one value, as it was given.
    """
    arguments, swept = [], []
    for text in run.overrides:
        key, _, _ = text.partition("=")
        arguments.append(fixed.get(key, text))
        if key not in fixed:
            swept.append(text)
    return RunArguments(tuple(arguments), tuple(swept))


def choose_names(
    name: str | None, configs: Sequence[RunConfig], arguments: Sequence[RunArguments]
) -> list[str]:
    """Return a name for each run.

    In a sweep it ends with the swept values. If such a name is too long, or two are equal, they
    end with a hash of the values instead, so that a longer sweep gives a run its old name.

    Args:
        name: `run.name` before `--`.
        configs: The configuration of each run.
        arguments: The arguments of each run.

    Raises:
        LaunchError: There is no name, or there are two, or one has wrong characters.
    """
    given = {str(config.run.name) for config in configs if config.run.name is not None}
    if name is not None and given - {name}:
        raise LaunchError(
            f"run.name is {name!r} before -- and {min(given)!r} after it; give it once"
        )
    if name is None and not given:
        raise LaunchError(
            "run.name is required, because a restarted job finds its run by name; set it before "
            "--, as in run.name=first"
        )
    if name is None and len(given) == len(configs):  # a sweep may set it: run.name=a,b
        return [_check(str(config.run.name)) for config in configs]
    name = _check(name or min(given))
    if len(configs) == 1:
        return [name]
    names = [f"{name}-{_describe(each.swept)}" for each in arguments]
    if len(set(names)) < len(names) or max(map(len, names)) > MAX_NAME:
        names = [f"{name}-{_hash(each.swept)}" for each in arguments]
    return [_check(each) for each in names]


def _check(name: str) -> str:
    try:
        return check_name(name)
    except ValueError as error:
        raise LaunchError(f"run.name: {error}") from error


def _describe(swept: Sequence[str]) -> str:
    """Return the swept values as a part of a name, such as `seed-1-lr-0-001`."""
    parts = []
    for argument in swept:
        key, _, value = argument.partition("=")
        parts.append(f"{key.rpartition('.')[2]}-{value}")
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def _hash(swept: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(swept).encode()).hexdigest()[:_DIGITS]
