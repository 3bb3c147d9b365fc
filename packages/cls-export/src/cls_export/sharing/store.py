"""Stores of shared bundles.

In a bucket or folder, `blobs/sha256/HEX` holds files and manifests by digest, and `tags/TAG` the
digest of a manifest. Blobs never change, so two processes may push to the same folder.
"""

import errno
import hashlib
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from cls_export.contract.errors import BundleError, RemoteBundleError, TransferError
from cls_export.contract.files import (
    open_atomically,
    open_regular,
    read_bytes,
    remove_drafts,
    write_atomically,
)
from cls_export.sharing.manifest import MAX_MANIFEST_BYTES, Blob
from cls_export.sharing.references import FOLDER_SCHEME, REGISTRY_SCHEME, Reference, is_digest

RETRY_SECONDS = (1.0, 4.0)
"""Waits before the second and the third attempt, unless the server asks to wait longer."""

MAX_WAIT_SECONDS = 60.0
"""If the server asks for more, the error is raised at once."""

_MAX_TAG_BYTES = 1_000

_CHUNK_BYTES = 2**20
_MISSING = (errno.ENOENT, errno.ENOTDIR)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)

Result = TypeVar("Result")


class BundleStore(Protocol):
    """Blobs by digest, and manifests by digest or tag.

    A store does not check what it returns: `pull_bundle` compares each digest.

    Every method raises a RemoteBundleError if something is missing or access is denied, and a
    TransferError if the network or the server fails.
    """

    def has_blob(self, blob: Blob) -> bool:
        """Whether the store already holds these bytes."""

    def upload_blob(self, blob: Blob, source: Path | bytes) -> None:
        """Store the bytes of a file, or given bytes."""

    def put_manifest(self, content: bytes, tag: str) -> None:
        """Store a manifest whose blobs are uploaded, and let the tag name it."""

    def get_manifest(self, version: str) -> bytes:
        """Return the manifest of a tag or digest, of at most `MAX_MANIFEST_BYTES`."""

    def read_blob(self, blob: Blob) -> Generator[bytes, None, None]:
        """Yield the bytes of a blob in chunks."""

    def close(self) -> None:
        """Close the connections."""


def open_store(reference: Reference) -> BundleStore:
    """Open the store of a reference; nothing is read or written.

    Raises:
        MissingExtraError: The package for this scheme is not installed.
    """
    if reference.scheme == REGISTRY_SCHEME:
        from cls_export.sharing.registry import Registry

        return Registry(reference)
    if reference.scheme == FOLDER_SCHEME:
        return FolderStore(reference)

    from cls_export.sharing.object_storage import ObjectStorage

    return ObjectStorage(reference)


def with_retries(action: Callable[[], Result]) -> Result:
    """Run an action, up to three times while it raises a temporary TransferError."""
    for seconds in RETRY_SECONDS:
        try:
            return action()
        except TransferError as error:
            asked = error.wait_seconds or 0.0
            if not error.is_temporary or asked > MAX_WAIT_SECONDS:
                raise
        time.sleep(max(seconds, asked))
    return action()


def blob_path(digest: str) -> str:
    """Return the path of some bytes below the folder of a reference."""
    return f"blobs/{digest.replace(':', '/')}"


def tag_path(tag: str) -> str:
    """Return the path of a tag below the folder of a reference."""
    return f"tags/{tag}"


def read_manifest(read: Callable[[str, int], bytes], version: str, reference: Reference) -> bytes:
    """Return the manifest of a tag or digest, given a function that reads a path up to a size."""
    if not is_digest(version):
        version = read(tag_path(version), _MAX_TAG_BYTES).decode(errors="replace").strip()
        if not is_digest(version):
            raise BundleError(f"{reference}: the tag does not hold a digest. Push the bundle again")
    return read(blob_path(version), MAX_MANIFEST_BYTES)


class FolderStore:
    """A local folder of blobs and tags, as a `BundleStore`. Every file is written atomically."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._root = Path(f"/{reference.path}")

    def has_blob(self, blob: Blob) -> bool:
        """See `BundleStore`."""
        try:
            return (self._root / blob_path(blob.digest)).stat().st_size == blob.size
        except OSError:
            return False

    def upload_blob(self, blob: Blob, source: Path | bytes) -> None:
        """See `BundleStore`."""
        path = self._root / blob_path(blob.digest)
        with self._described():
            if isinstance(source, bytes):
                write_atomically(path, source)
                return
            with open_regular(source, error=BundleError) as stream, open_atomically(path) as target:
                digest = hashlib.sha256()
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    target.write(chunk)
                if f"sha256:{digest.hexdigest()}" != blob.digest:
                    raise BundleError(f"{source} was replaced while it was read; push it again")

    def put_manifest(self, content: bytes, tag: str) -> None:
        """See `BundleStore`."""
        manifest = Blob.of(content)
        self.upload_blob(manifest, content)
        with self._described():
            path = self._root / tag_path(tag)
            write_atomically(path, f"{manifest.digest}\n".encode())
            for folder in (path.parent, (self._root / blob_path(manifest.digest)).parent):
                remove_drafts(folder)

    def get_manifest(self, version: str) -> bytes:
        """See `BundleStore`."""
        return read_manifest(self._read, version, self._reference)

    def read_blob(self, blob: Blob) -> Generator[bytes, None, None]:
        """See `BundleStore`."""
        path = self._root / blob_path(blob.digest)
        with self._described(), path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk

    def close(self) -> None:
        """See `BundleStore`."""

    def _read(self, name: str, max_bytes: int) -> bytes:
        with self._described():
            path = self._root / name
            path.stat()  # a missing version is not a damaged one
            return read_bytes(path, error=BundleError, max_bytes=max_bytes)

    @contextmanager
    def _described(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            if error.errno in _MISSING:
                raise RemoteBundleError(
                    f"{self._reference} does not exist. Check the folder and the version"
                ) from error
            if error.errno in _DENIED:
                raise RemoteBundleError(f"{self._reference}: access denied ({reason})") from error
            raise TransferError(f"{self._reference}: {reason}") from error
