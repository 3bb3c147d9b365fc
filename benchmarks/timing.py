"""Timing helpers shared by the benchmarks."""

import os
import time
from collections.abc import Callable, Sequence


def time_in_turns(
    calls: Sequence[Callable[[], object]],
    *,
    rounds: int = 0,
    seconds: float = 0.0,
    warm_up: int = 1,
) -> list[list[float]]:
    """Time each call in turn, so that a busy moment of the machine affects all of them alike.

    Args:
        calls: The candidates.
        rounds: The smallest number of measured rounds.
        seconds: Keep measuring for at least this long.
        warm_up: Number of rounds that are run first and discarded.

    Returns:
        For each call, its duration in seconds in each measured round.
    """
    durations: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while len(durations[0]) < rounds + warm_up or time.perf_counter() < end:
        for call, measured in zip(calls, durations, strict=True):
            started = time.perf_counter()
            call()
            measured.append(time.perf_counter() - started)
    return [measured[warm_up:] for measured in durations]


def environment_with_bytecode() -> dict[str, str]:
    """Return the environment for a child process that may write bytecode files."""
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment
