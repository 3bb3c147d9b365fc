"""Files that stand in for the file of a bundle, such as pointers of Git LFS."""

import os

from cls_export.contract.errors import BundleError

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_ARCHIVES = {b"PK\x03\x04": "ZIP", b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "Zstandard"}
"""The first bytes of archives."""

HEAD_BYTES = 64
"""So many bytes tell a substitute."""


def refuse_substitute(path: str | os.PathLike[str], head: bytes) -> None:
    """Raise a BundleError if a file begins like a Git LFS pointer or an archive."""
    if head.startswith(_LFS_POINTER):
        raise BundleError(
            f"{path} is a pointer of Git LFS, not the file itself. To download the file, run: "
            "git lfs pull"
        )
    for first_bytes, kind in _ARCHIVES.items():
        if head.startswith(first_bytes):
            raise BundleError(f"{path} is a {kind} archive; unpack it first")
