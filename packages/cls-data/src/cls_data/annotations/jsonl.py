"""Lines of a text file, one at a time, none of them longer than memory allows."""

from collections.abc import Iterator
from pathlib import Path

LONGEST_LINE = 1_000_000
"""Bytes. A longer line is no row of ours, and is never held in memory."""


def read_lines(file: Path) -> Iterator[tuple[int, bytes | None]]:
    """Yield line numbers from 1 with their bytes, stripped; blank lines are left out, None stands for one too long.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                while line and not line.endswith(b"\n"):
                    line = stream.readline(LONGEST_LINE)
                yield number, None
                continue
            text = (
                line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            ).strip()  # a byte-order mark
            if text:
                yield number, text
