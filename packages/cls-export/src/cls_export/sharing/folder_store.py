"""Bundles in a shared folder, in the layout of `object_storage`."""

import errno
import hashlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from cls_export.contract.errors import BundleError, RemoteBundleError, TransferError
from cls_export.contract.files import open_atomically, open_regular, read_bytes, write_atomically
from cls_export.sharing.manifest import MAX_MANIFEST_BYTES, Blob
from cls_export.sharing.object_layout import MAX_TAG_BYTES, blob_path, read_tag, tag_path
from cls_export.sharing.references import Reference

_CHUNK_BYTES = 2**20
_MISSING = (errno.ENOENT, errno.ENOTDIR)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


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
            write_atomically(self._root / tag_path(tag), f"{manifest.digest}\n".encode())

    def get_manifest(self, version: str) -> bytes:
        """See `BundleStore`."""
        if not version.startswith("sha256:"):
            content = self._read(tag_path(version), MAX_TAG_BYTES)
            version = read_tag(content, self._reference)
        return self._read(blob_path(version), MAX_MANIFEST_BYTES)

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
                raise RemoteBundleError(
                    f"{self._reference}: access denied ({reason}). Check the permissions"
                ) from error
            raise TransferError(f"{self._reference}: {reason}") from error
