"""Read and write whole files of one run in remote storage: a bucket, or a folder."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cls_callbacks.remote.storage_errors import (
    RemoteStorageError,
    describe_storage_error,
    get_protocol,
    is_bucket,
)
from cls_export.contract.files import draft_path, open_atomically, write_atomically

_DRAFT_SUFFIX = ".draft"

_S3_TIMEOUTS = {"connect_timeout": 10, "read_timeout": 60}
"""Seconds; the default of 60 for a connection would let each attempt hang for minutes."""


class RemoteFolder:
    """The folder of one run below a URL. Names are relative to it and contain `/` on any system.

    A file is replaced whole: object storage does that by itself, and elsewhere a draft is renamed.
    Nothing is cached, so other machines' changes are seen. Methods can be called from any thread.

    All methods raise `RemoteStorageError`; reading a missing file is not an error.
    """

    has_exclusive_create = False
    """Whether `create` is certainly exclusive. For object storage, the lease tests it."""

    def __init__(self, filesystem: Any, root: str, url: str) -> None:
        self._filesystem = filesystem
        self._root = root
        self.url = url
        """For messages."""

    @property
    def is_object_store(self) -> bool:
        """Whether a written file appears whole without a draft."""
        return is_bucket(self.url) or get_protocol(self.url) == "memory"

    @property
    def local_path(self) -> Path | None:
        """The path of a folder of this machine; None for other storage."""
        return None

    def check_exists(self) -> None:
        """Raise an error if the bucket or the parent folder does not exist, or is not readable."""
        self.list_sizes()

    def list_sizes(self, folder: str = "") -> dict[str, int]:
        """Return the bytes of each file by name, without drafts.

        Args:
            folder: Only files in this folder of the run; all files by default.
        """
        path = self._path(folder).rstrip("/")
        with _described(self.url):
            found = self._filesystem.find(path, detail=True)
        sizes = {}
        for path, info in found.items():
            name = path.removeprefix(f"{self._root}/")
            is_folder = info["type"] == "directory"  # some S3 servers list empty folders
            if name and not is_folder and not name.endswith(_DRAFT_SUFFIX):
                sizes[name] = int(info["size"])
        return sizes

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None if it does not exist."""
        with _described(self.url):
            try:
                content: bytes = self._filesystem.cat_file(self._path(name))
            except FileNotFoundError:
                return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        with _described(self.url), self._target(name) as target:
            self._filesystem.pipe_file(target, content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file unless it exists; return whether it was written."""
        with _described(self.url):
            self._make_parent(name)
            try:
                self._filesystem.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return False
            except OSError:
                # s3fs recognizes the answer of AWS only, not that of other S3 servers.
                if self.read(name) is None:
                    raise
                return False
        return True

    def upload(self, path: Path, name: str) -> None:
        """Write a copy of a local file."""
        if not path.exists():  # the backend's error would look like one of the storage
            raise RemoteStorageError(f"{path} was deleted before it was pushed", is_permanent=True)
        with _described(self.url):
            self._upload(path, name)

    def _upload(self, path: Path, name: str) -> None:
        with self._target(name) as target:
            self._filesystem.put_file(str(path), target)

    def download(self, name: str, path: Path) -> None:
        """Write a local file, whole or not at all.

        Raises:
            OSError: The local disk is full, or the folder cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = draft_path(path)
        draft.touch()  # an error here is one of the local folder
        try:
            with _described(f"{self.url}/{name}"):
                self._filesystem.get_file(self._path(name), str(draft))
            with draft.open("rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)

    def copy(self, name: str, new_name: str) -> None:
        """Copy a file inside the storage, without a transfer of its bytes if that is possible."""
        with _described(self.url), self._target(new_name) as target:
            self._filesystem.cp_file(self._path(name), target)

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        with _described(self.url), contextlib.suppress(FileNotFoundError):
            self._filesystem.rm_file(self._path(name))

    def delete_drafts(self) -> None:
        """Delete half-written files of dead machines. Only the owner of the run may call this."""
        if self.is_object_store:
            return
        with _described(self.url):
            for path in self._filesystem.find(self._root):
                if path.endswith(_DRAFT_SUFFIX):
                    self._filesystem.rm_file(path)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _make_parent(self, name: str) -> None:
        # In a bucket there are no folders, and makedirs would create the bucket.
        if not self.is_object_store:
            folder = self._path(name).rpartition("/")[0]
            self._filesystem.makedirs(folder, exist_ok=True)

    @contextlib.contextmanager
    def _target(self, name: str) -> Iterator[str]:
        """Yield the path to write to, which is renamed at the end if it is a draft."""
        path = self._path(name)
        if self.is_object_store:
            yield path
            return
        self._make_parent(name)
        folder, _, base = path.rpartition("/")
        draft = f"{folder}/{draft_path(Path(base)).name}"
        yield draft
        self._filesystem.mv(draft, path)


class _LocalFolder(RemoteFolder):
    """A folder of this machine, such as a network mount. Files are flushed to disk."""

    has_exclusive_create = True

    @property
    def local_path(self) -> Path | None:
        return Path(self._root)

    def check_exists(self) -> None:
        # An unmounted disk looks like a missing folder, and must not be replaced by a new one.
        parent = Path(self._root).parent
        with _described(str(parent)):
            next(parent.iterdir(), None)

    def write(self, name: str, content: bytes) -> None:
        with _described(self.url):
            write_atomically(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        target = Path(self._path(name))
        with _described(self.url):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with target.open("xb") as stream:
                    stream.write(content)
            except FileExistsError:
                return False
        return True

    def _upload(self, path: Path, name: str) -> None:
        with open_atomically(self._path(name)) as target, path.open("rb") as source:
            shutil.copyfileobj(source, target, 1 << 20)

    def copy(self, name: str, new_name: str) -> None:
        self.upload(Path(self._path(name)), new_name)


def open_remote_folder(url: str, name: str) -> RemoteFolder:
    """Open the folder of a run below a URL, which fsspec or an installed package understands.

    Nothing is read or written.

    Raises:
        RemoteStorageError: The protocol is unknown, or the package for it is not installed.
    """
    protocol = get_protocol(url)
    options: dict[str, Any] = {}
    if protocol not in ("file", "local"):
        options["use_listings_cache"] = False
    if protocol == "s3":
        options["config_kwargs"] = _S3_TIMEOUTS
    if protocol == "gs":
        # Its gRPC threads do not survive the fork of a loader worker.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

    run_url = f"{url.rstrip('/')}/{name}"
    try:
        filesystem, root = fsspec.url_to_fs(run_url, **options)
    except ValueError as error:  # an unknown protocol, or an unusable URL
        raise RemoteStorageError(
            f"run.remote={url}: {error}. Expected gs://BUCKET/FOLDER, s3://BUCKET/FOLDER, "
            "a folder, or another URL of fsspec",
            is_permanent=True,
        ) from error
    except Exception as error:  # each storage backend raises its own errors
        raise describe_storage_error(error, url) from error
    root = root.rstrip("/")
    if isinstance(filesystem, LocalFileSystem):
        return _LocalFolder(filesystem, root, root)
    return RemoteFolder(filesystem, root, run_url)


@contextlib.contextmanager
def _described(url: str) -> Iterator[None]:
    try:
        yield
    except RemoteStorageError:
        raise
    except Exception as error:  # each storage backend raises its own errors
        raise describe_storage_error(error, url) from error
