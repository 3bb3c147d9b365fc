"""A progress line for long commands."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_INTERVAL_SECONDS = 0.5


def with_progress(items: Iterable[Item], total: int) -> Iterator[Item]:
    """Yield the items, and print their count and rate to stderr if it is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    start = time.perf_counter()  # time.monotonic has a resolution of 16 ms on Windows
    last_update = start

    for done, item in enumerate(items, start=1):
        yield item

        now = time.perf_counter()
        if now - last_update >= _INTERVAL_SECONDS or done == total:
            last_update = now
            rate = done / (now - start)
            end = "\n" if done == total else ""
            print(f"\r{done:,} of {total:,} ({rate:.0f}/s)", end=end, file=sys.stderr, flush=True)
