"""Read text files line by line, with limits on the file's size and the length of a line."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cls_data.errors import DataError

MAX_LINE_BYTES = 1_000_000
"""A longer line is never held in memory."""

MAX_FILE_BYTES = 4_000_000_000
"""About 40 million rows. A larger file is not an annotation file."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_lines(file: Path) -> Iterator[tuple[int, bytes | None]]:
    """Yield the number and the stripped bytes of each nonblank line; None for an overlong line.

    Raises:
        DataError: The file cannot be read, is not a regular file, is too large, or is UTF-16.
    """
    try:
        with _open_regular_file(file) as stream:
            yield from _read_lines(stream, file)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def _read_lines(stream: BinaryIO, file: Path) -> Iterator[tuple[int, bytes | None]]:
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1 and line.startswith(_UTF16_MARKS):
            raise DataError(f"{file}: the text is UTF-16; save the file as UTF-8")
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


def _open_regular_file(file: Path) -> BinaryIO:
    # O_NONBLOCK: otherwise opening a pipe waits for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(file, flags)
    state = os.fstat(descriptor)
    problem = None
    if not stat.S_ISREG(state.st_mode):
        problem = "is a folder, device, pipe, or socket; expected a text file"
    elif state.st_size > MAX_FILE_BYTES:
        problem = f"has {state.st_size:,} bytes; expected at most {MAX_FILE_BYTES:,}"
    if problem is not None:
        os.close(descriptor)
        raise DataError(f"{file}: {problem}")
    return os.fdopen(descriptor, "rb")
