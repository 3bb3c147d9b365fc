"""Interface of the places that hold shared bundles."""

from collections.abc import Generator
from pathlib import Path
from typing import Protocol

from cls_export.sharing.manifest import Blob
from cls_export.sharing.references import FOLDER_SCHEME, REGISTRY_SCHEME, Reference


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
        from cls_export.sharing.folder_store import FolderStore

        return FolderStore(reference)

    from cls_export.sharing.object_storage import ObjectStorage

    return ObjectStorage(reference)
