"""Read text files line by line, with a limit on line length."""

from collections.abc import Iterator
from pathlib import Path

MAX_LINE_BYTES = 1_000_000
"""A longer line is never held in memory."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(file: Path) -> Iterator[tuple[int, bytes | None]]:
    """Yield the number and the stripped bytes of each nonblank line; None for an overlong line."""
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                while line and not line.endswith(b"\n"):
                    line = stream.readline(MAX_LINE_BYTES)
                yield number, None
                continue
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            text = line.strip()
            if text:
                yield number, text
