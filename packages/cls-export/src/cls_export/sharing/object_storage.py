"""Bundles in object storage, through fsspec."""

import logging
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cls_export.contract.errors import (
    BundleError,
    MissingExtraError,
    RemoteBundleError,
    TransferError,
)
from cls_export.sharing.manifest import Blob
from cls_export.sharing.references import Reference
from cls_export.sharing.store import blob_path, read_manifest, tag_path

_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
"""The package of a scheme, and the extra that installs it."""
_LOGIN = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "Run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS",
}
_CREDENTIAL_ERRORS = (
    "DefaultCredentialsError",
    "NoCredentialsError",
    "ProfileNotFound",
    "RefreshError",
)
"""Errors of google-auth and botocore, which need not be installed."""
_CHUNK_BYTES = 2**20


for _name in ("gcsfs", "s3fs", "fsspec"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)  # a failure is one message, ours


class ObjectStorage:
    """A folder of blobs and tags, as a `BundleStore`."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        if reference.scheme == "gs":
            # Otherwise gcsfs asks for the kind of the bucket, which needs another permission.
            os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        with self._described():
            try:
                import fsspec

                self._files: Any
                self._files, root = fsspec.url_to_fs(reference.name, use_listings_cache=False)
            except ImportError as error:
                package, extra = _PACKAGES[reference.scheme]
                raise MissingExtraError(
                    f"{package} is not installed. For {reference.scheme}:// "
                    f'references: pip install "cls-export[{extra}]"'
                ) from error
        self._root = root.rstrip("/")

    def has_blob(self, blob: Blob) -> bool:
        """See `BundleStore`."""
        path = self._blob_path(blob.digest)
        with self._described():
            try:
                return bool(self._files.info(path)["size"] == blob.size)
            except FileNotFoundError:
                return False

    def upload_blob(self, blob: Blob, source: Path | bytes) -> None:
        """See `BundleStore`."""
        path = self._blob_path(blob.digest)
        with self._described():
            if isinstance(source, bytes):
                self._files.pipe_file(path, source)
                return
            self._files.put_file(str(source), path)
            if Blob.of_file(source) != blob:
                self._files.rm_file(path)
                raise BundleError(f"{source} was replaced while it was read; push it again")

    def put_manifest(self, content: bytes, tag: str) -> None:
        """See `BundleStore`."""
        manifest = Blob.of(content)
        self.upload_blob(manifest, content)
        with self._described():
            path = f"{self._root}/{tag_path(tag)}"
            self._files.pipe_file(path, f"{manifest.digest}\n".encode())

    def get_manifest(self, version: str) -> bytes:
        """See `BundleStore`."""
        return read_manifest(self._read, version, self._reference)

    def read_blob(self, blob: Blob) -> Generator[bytes, None, None]:
        """See `BundleStore`."""
        with self._described(), self._files.open(self._blob_path(blob.digest), "rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk

    def close(self) -> None:
        """See `BundleStore`."""

    def _read(self, name: str, max_bytes: int) -> bytes:
        path = f"{self._root}/{name}"
        with self._described(), self._files.open(path, "rb") as stream:
            content: bytes = stream.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise BundleError(f"{self._reference}: {path} is larger than {max_bytes:,} bytes")
        return content

    def _blob_path(self, digest: str) -> str:
        return f"{self._root}/{blob_path(digest)}"

    @contextmanager
    def _described(self) -> Iterator[None]:
        try:
            yield
        except (BundleError, RemoteBundleError, MissingExtraError, MemoryError):
            raise
        except Exception as error:  # each storage backend raises its own errors
            raise _describe(error, self._reference) from error


def _describe(error: Exception, reference: Reference) -> Exception:
    reason = str(getattr(error, "strerror", None) or error or type(error).__name__)
    reason = reason.strip().partition("\n")[0][:300]
    if isinstance(error, FileNotFoundError):
        return RemoteBundleError(f"{reference} does not exist. Check the folder and the version")
    code = str(getattr(error, "code", ""))
    is_denied = isinstance(error, PermissionError) or code in ("401", "403")
    if is_denied or type(error).__name__ in _CREDENTIAL_ERRORS:
        login = _LOGIN[reference.scheme]
        return RemoteBundleError(f"{reference.name}: access denied ({reason}). {login}")
    # Not temporary, because gcsfs and s3fs have tried again already.
    return TransferError(f"{reference.name}: {reason}. Check the address and the network")
