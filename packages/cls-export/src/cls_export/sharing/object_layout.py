"""Where a bundle is stored in a bucket or a shared folder.

`blobs/sha256/HEX` holds files and manifests by digest, and `tags/TAG` the digest of a manifest.
Blobs never change, and a tag is one object, so two processes may push to the same folder.
"""

from typing import Final

from cls_export.contract.errors import BundleError
from cls_export.sharing.references import Reference, is_digest

MAX_TAG_BYTES: Final = 1_000


def blob_path(digest: str) -> str:
    """Return the path of some bytes below the folder of a reference."""
    return f"blobs/{digest.replace(':', '/')}"


def tag_path(tag: str) -> str:
    """Return the path of a tag below the folder of a reference."""
    return f"tags/{tag}"


def read_tag(content: bytes, reference: Reference) -> str:
    """Return the digest that a tag holds.

    Raises:
        BundleError: It holds something else.
    """
    digest = content.decode(errors="replace").strip()
    if not is_digest(digest):
        raise BundleError(f"{reference}: the tag does not hold a digest. Push the bundle again")
    return digest
