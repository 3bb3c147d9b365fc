"""Files below a URL, read in ranges through fsspec, with retries."""

import errno
import posixpath
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

import fsspec
from loguru import logger

from cls_data.errors import DataError

Result = TypeVar("Result")

RETRY_SECONDS = 120.0
"""How long requests to an unreachable server are retried."""

START_SECONDS = 10.0
"""The same for the first request: at the start, a wrong URL is likelier than an outage."""

_WITHOUT_FOLDERS = frozenset({"abfs", "az", "gcs", "gs", "oci", "oss", "s3", "s3a"})
"""Object stores have no folders, and s3fs would create a bucket of a misspelled name."""

_PACKAGES = {
    "gcs": ("gcsfs", "gcs"),
    "gs": ("gcsfs", "gcs"),
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
}
"""The package of a protocol, and the extra that installs it in this repository."""

_PROBE = "write-test"
_FIRST_PAUSE = 0.5
_MAX_PAUSE = 10.0

_PERMANENT = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    PermissionError,
)
"""Errors that a retry cannot fix."""

_PERMANENT_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class Storage:
    """A folder on object storage, on a web server, or on a disk.

    Attributes:
        url: The URL as the user gave it, for messages.
        retry_seconds: How long an unreachable server is tried again.
    """

    url: str
    retry_seconds: float = RETRY_SECONDS
    _filesystem: Any = field(default=None, repr=False)
    _folder: str = ""

    @classmethod
    def open(cls, url: str, *, retry_seconds: float = RETRY_SECONDS) -> Self:
        """Find the file system of a URL such as s3://bucket/folder. Connects to nothing.

        Raises:
            DataError: The URL is malformed, or the package for it is not installed.
        """
        try:
            _, separator, rest = url.partition("://")
            if separator and not rest.strip("/"):
                raise ValueError("no bucket or host")
            filesystem, folder = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise DataError(f"{url}: {_describe_missing_package(url, error)}") from error
        except Exception as error:  # each file system raises its own errors
            raise DataError(
                f"{url}: cannot be used ({_describe(error)}); expected a folder or a URL such as "
                "s3://bucket/folder, gs://bucket/folder, or https://host/folder"
            ) from error
        return cls(url, retry_seconds, filesystem, folder)

    def check_writable(self) -> None:
        """Write an empty file and delete it, to notice wrong credentials before hours of work.

        Raises:
            DataError: The folder cannot be written.
        """
        if self.url.startswith(("http://", "https://")):
            raise DataError(
                f"{self.url}: a web server can be read, not written; write to a folder that it "
                "serves"
            )
        patient = replace(self, retry_seconds=min(self.retry_seconds, START_SECONDS))
        patient.write(_PROBE, b"")
        patient._retry(_PROBE, lambda: self._filesystem.rm_file(self._path(_PROBE)))

    def read(self, name: str) -> bytes:
        """Read a whole file. Raises like `read_range`."""
        path = self._path(name)
        content: bytes = self._retry(name, lambda: self._filesystem.cat_file(path))
        return content

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Read the bytes from `start` to `stop` of a file.

        Raises:
            DataError: The file is missing, shorter than `stop`, or cannot be reached for
                `retry_seconds`.
        """
        path = self._path(name)
        content: bytes = self._retry(
            name, lambda: self._filesystem.cat_file(path, start=start, end=stop)
        )
        if len(content) != stop - start:
            raise DataError(
                f"{self._full_name(name)}: bytes {start} to {stop} were requested, and "
                f"{len(content)} arrived. Either the file is cut short, which `cls-data shard` "
                "repairs, or the server ignores ranges"
            )
        return content

    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None if it does not exist."""
        path = self._path(name)
        try:
            size: int = self._filesystem.size(path)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._error(name, error) from error
        return size

    def list_files(self) -> dict[str, dict[str, Any]]:
        """Return the names of all files below the folder, and what the file system says of each.

        Raises:
            DataError: The folder cannot be listed.
        """
        patient = replace(self, retry_seconds=min(self.retry_seconds, START_SECONDS))
        found = patient._retry("", lambda: self._filesystem.find(self._folder, detail=True))
        files = {}
        for path, details in found.items():
            name = posixpath.relpath(path, self._folder)
            if details["type"] == "file" and not path.endswith("/"):
                files[name] = details
        return files

    def download(self, name: str, file: Path) -> None:
        """Copy a file of the folder to a local one. Raises like `read`."""
        path = self._path(name)
        self._retry(name, lambda: self._filesystem.get_file(path, str(file)))

    def stream(self, name: str) -> BinaryIO:
        """Open a file that can be read at any position."""
        path = self._path(name)
        opened: BinaryIO = self._retry(name, lambda: self._filesystem.open(path, "rb"))
        return opened

    def upload(self, file: Path, name: str) -> None:
        """Copy a local file to the folder; an existing one is replaced.

        Raises:
            DataError: It cannot be written.
        """
        path = self._path(name)

        def put() -> None:
            self._create_folder()
            self._filesystem.put_file(str(file), path)

        self._retry(name, put)

    def write(self, name: str, content: bytes) -> None:
        """Write a file. Raises like `upload`."""
        path = self._path(name)

        def put() -> None:
            self._create_folder()
            self._filesystem.pipe_file(path, content)

        self._retry(name, put)

    def _create_folder(self) -> None:
        protocols = self._filesystem.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        if names.isdisjoint(_WITHOUT_FOLDERS):
            self._filesystem.makedirs(self._folder, exist_ok=True)

    def _retry(self, name: str, action: Callable[[], Result]) -> Result:
        """Call an action until it succeeds, fails for good, or has failed for too long."""
        deadline = time.monotonic() + self.retry_seconds
        pause = _FIRST_PAUSE
        while True:
            try:
                return action()
            except Exception as error:  # each file system raises its own errors
                if _is_permanent(error) or time.monotonic() + pause > deadline:
                    raise self._error(name, error) from error
                logger.warning("{}: {}; trying again", self._full_name(name), _describe(error))
            time.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)

    def _error(self, name: str, error: Exception) -> DataError:
        return DataError(
            f"{self._full_name(name)}: cannot be read or written ({_describe(error)}). "
            f"{_advise(error)}"
        )

    def _path(self, name: str) -> str:
        return posixpath.join(self._folder, name)

    def _full_name(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}"


def _is_permanent(error: Exception) -> bool:
    return isinstance(error, _PERMANENT) or getattr(error, "errno", None) in _PERMANENT_CODES


def _advise(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "Check the URL, and that `cls-data shard` has finished"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "A file is where a folder should be; choose another URL"
    if isinstance(error, PermissionError):
        return "Check the permissions and the credentials"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space, or choose another URL"
    return "Check the URL, the network, and the credentials"


def _describe_missing_package(url: str, error: ImportError) -> str:
    protocol = url.partition("://")[0]
    if protocol not in _PACKAGES:
        return f"a package is missing ({error})"
    package, extra = _PACKAGES[protocol]
    return (
        f"the package {package} is not installed; add --extra {extra} after `uv run`, or outside "
        f"of this repository: pip install {package}"
    )


def _describe(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.errno is None:
        return f"no such file or bucket: {error}"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(reason).strip().partition("\n")[0].removesuffix(".")
