"""How far a long command has come, for a person at a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_EVERY = 0.5
"""Seconds."""


def with_progress(items: Iterable[Item], total: int) -> Iterator[Item]:
    """Yield the items, and write how many have been on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    started = shown = (
        time.perf_counter()
    )  # the monotonic clock of Windows stands still for 16 ms at a time
    for done, item in enumerate(items, start=1):
        yield item
        now = time.perf_counter()
        if now - shown >= _EVERY or done == total:
            shown = now
            end = "\n" if done == total else ""
            print(
                f"\r{done:,} of {total:,} ({done / (now - started):.0f}/s)",
                end=end,
                file=sys.stderr,
                flush=True,
            )
