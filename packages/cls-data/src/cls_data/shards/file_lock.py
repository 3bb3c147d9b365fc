"""Locks between the threads and processes of a machine, which end with their holder."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

_threads = threading.Lock()


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Wait until no other thread or process holds the lock of a file, and hold it.

    Where the file system has no locks, only the threads of this process exclude each other.

    Raises:
        OSError: The file cannot be created.
    """
    if fcntl is None:
        with _threads:
            yield
        return

    with path.open("wb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:
            with _threads:
                yield
            return
        yield
