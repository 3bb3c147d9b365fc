"""Read and write whole files."""

import errno
import hashlib
import io
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_DRAFT_SUFFIX = ".draft"
_MAX_NAME_BYTES = 255
_MAX_NAME = 100
"""Bytes of the target's name in a draft's name, because file systems limit names to 255 bytes."""
_CHUNK_BYTES = 1 << 20


@contextmanager
def open_atomically(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces `path` when the block ends without an error.

    The content goes to a hidden draft beside the target, is flushed to disk, and then renamed.
    Missing parent folders are created. On an error the draft is deleted and an older file at
    `path` stays unchanged. A killed process leaves its draft: see `remove_drafts`.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_path(target)

    try:
        with draft.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, target)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(draft)):
            # A full disk is reported without a name, and the draft's name is of no use.
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
    finally:
        draft.unlink(missing_ok=True)


def draft_path(target: Path, suffix: str = _DRAFT_SUFFIX) -> Path:
    """Return the path of this process's draft of a file or folder, beside its target.

    The name is `.NAME.HOST.PROCESS.draft`, or ends in another suffix.
    """
    return target.with_name(f"{draft_prefix(target)}{_host()}.{os.getpid()}{suffix}")


def draft_prefix(target: Path) -> str:
    """Return the start of the names of a file's or folder's drafts, of all processes."""
    name = os.fsdecode(os.fsencode(target.name)[:_MAX_NAME])
    return f".{name}."


def find_stale_drafts(folder: Path, suffix: str = _DRAFT_SUFFIX) -> list[Path]:
    """Return the drafts in a folder whose processes ran on this host and no longer exist."""
    host = _host()
    drafts = []
    for draft in folder.glob(f".*{suffix}"):
        *_, draft_host, process = draft.name.removesuffix(suffix).split(".")
        if draft_host == host and process.isdigit() and not _is_running(int(process)):
            drafts.append(draft)
    return drafts


def _host() -> str:
    return socket.gethostname().replace(".", "-")


def remove_drafts(folder: Path) -> None:
    """Delete the drafts (files and folders) of dead processes in a folder, if it exists."""
    for draft in find_stale_drafts(folder):
        delete(draft)


def delete(path: Path) -> None:
    """Delete a file, or a folder with everything in it. A link is deleted, not its target."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists() or path.is_symlink():
        path.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a whole file, or leave an older one unchanged; see `open_atomically`."""
    with open_atomically(path) as stream:
        stream.write(content)


def read_bytes(
    path: str | os.PathLike[str], *, error: type[Exception], max_bytes: int | None = None
) -> bytes:
    """Read a whole regular file. If that fails, raise `error`, with the path and the reason.

    Devices, sockets, and pipes are refused, because reading them may never end.

    Args:
        path: The file.
        error: Class of the exception.
        max_bytes: Refuse larger files before memory is taken.
    """
    try:
        return _read_regular_file(path, max_bytes)
    except (OSError, ValueError) as cause:  # a NUL character in a path is a ValueError
        reason = getattr(cause, "strerror", None) or cause
        raise error(f"{path}: cannot be read ({reason})") from cause


@contextmanager
def open_regular(
    path: str | os.PathLike[str], *, error: type[Exception], max_bytes: int | None = None
) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading, with the checks of `read_bytes`.

    Errors inside the block are not converted to `error`.
    """
    try:
        stream = _open_regular(path, max_bytes)
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or cause
        raise error(f"{path}: cannot be read ({reason})") from cause
    with stream:
        yield stream


def _read_regular_file(path: str | os.PathLike[str], max_bytes: int | None) -> bytes:
    with _open_regular(path, max_bytes) as stream:
        if max_bytes is None:
            return stream.read()
        size = os.fstat(stream.fileno()).st_size
        content = stream.read(size + 1)  # read(max_bytes) would allocate that much
        if len(content) > size:  # the file grows, or is in /proc and states no size
            content += stream.read(max(0, max_bytes + 1 - len(content)))
        if len(content) > max_bytes:
            raise ValueError(_describe_limit(max_bytes))
        return content


def _open_regular(path: str | os.PathLike[str], max_bytes: int | None) -> io.BufferedReader:
    # O_NONBLOCK: otherwise opening a pipe waits for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        state = os.fstat(descriptor)
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("not a regular file")
        if max_bytes is not None and state.st_size > max_bytes:
            raise ValueError(_describe_limit(max_bytes))
        return open(descriptor, "rb")  # noqa: PTH123
    except BaseException:
        os.close(descriptor)
        raise


def _describe_limit(max_bytes: int) -> str:
    return f"larger than {max_bytes:,} bytes"


def _is_running(process: int) -> bool:
    if os.name == "nt":  # os.kill would send Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it belongs to another user
        return True
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    """Whether a process has ended and waits for its parent, which in a container may never ask."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:  # not Linux, or it has just ended
        return False
    state = status.rpartition(")")[2].split()[0]
    return state in ("Z", "X")


def refuse_long_names(path: Path) -> None:
    """Raise a ValueError if a file system cannot have a name of this path (over 255 bytes)."""
    for name in path.parts:
        if len(os.fsencode(name)) > _MAX_NAME_BYTES:
            raise ValueError(f"{name[:40]}… is too long for the name of a file or folder")


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of some bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256(data)
    return digest.hexdigest()


def sha256_of_file(path: str | os.PathLike[str], *, error: type[Exception]) -> str:
    """Return the SHA-256 of a regular file, read in chunks, as 64 hexadecimal digits.

    Raises `error` like `read_bytes`.
    """
    digest = hashlib.sha256()
    with open_regular(path, error=error) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
