"""Read and write whole files."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def open_atomically(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces `path` when the block ends without an error.

    The content goes to a hidden draft beside the target, is flushed to disk, and then renamed.
    Missing parent folders are created. On an error the draft is deleted and an older file at
    `path` stays unchanged.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")

    try:
        with draft.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a whole file, or leave an older one unchanged; see `open_atomically`."""
    with open_atomically(path) as stream:
        stream.write(content)


def read_bytes(path: str | os.PathLike[str], *, error: type[ValueError]) -> bytes:
    """Read a whole file. If that fails, raise `error`, with the path and the reason."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as cause:  # a NUL character in a path is a ValueError
        reason = getattr(cause, "strerror", None) or cause
        raise error(f"{path}: cannot be read ({reason})") from cause


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of some bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256(data)
    return digest.hexdigest()
