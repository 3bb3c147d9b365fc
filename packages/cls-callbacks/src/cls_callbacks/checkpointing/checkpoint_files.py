"""Verify, rename, duplicate, and remove checkpoints together with their SHA-256 sidecars."""

import hashlib
import os
import shutil
from pathlib import Path

from cls_export.contract.files import draft_path, write_atomically

_CHUNK_BYTES = 8 << 20
"""Large, so that a thread that trains at the same time rarely waits for the interpreter."""


class DamagedCheckpointError(ValueError):
    """A checkpoint does not match its SHA-256 checksum."""


def verify_checkpoint(path: Path) -> None:
    """Check a checkpoint against its checksum; a file without a checksum passes.

    Raises:
        DamagedCheckpointError: The checksum does not match.
        OSError: The file cannot be read.
    """
    checksums = read_checksums(path)
    if checksums and compute_checksum(path) not in checksums:
        raise DamagedCheckpointError(
            f"{path}: SHA-256 does not match {_sidecar(path).name}; the file is damaged"
        )


def rename_checkpoint(path: Path, target: Path) -> None:
    """Rename a checkpoint and its checksum.

    If the process dies midway, `target` still matches its checksum.
    """
    _rename(path, target, read_checksums(path))
    _sidecar(path).unlink(missing_ok=True)


def duplicate_checkpoint(path: Path, target: Path) -> None:
    """Create a second name for a checkpoint: a hard link, or a copy if links are not supported.

    If the process dies midway, `target` still matches its checksum.
    """
    checksums = read_checksums(path)
    draft = draft_path(target)
    try:
        _link_or_copy(path, draft)
        _rename(draft, target, checksums)
    finally:
        draft.unlink(missing_ok=True)
    flush_folder(target.parent)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and its checksum."""
    path.unlink(missing_ok=True)
    _sidecar(path).unlink(missing_ok=True)


def compute_checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as stream:
        while size := stream.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()


def read_checksums(path: Path) -> list[str]:
    """Return the checksums that are valid for a checkpoint; none without a sidecar."""
    try:
        lines = _sidecar(path).read_text().splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return []

    return [line.split()[0] for line in lines if line.strip()]


def write_checksums(path: Path, checksums: list[str]) -> None:
    """Write the sidecar in the format of `sha256sum`."""
    content = ""
    for checksum in checksums:
        content += f"{checksum}  {path.name}\n"
    write_atomically(_sidecar(path), content.encode())


def flush_folder(folder: Path) -> None:
    """Make a rename survive a power failure, on systems that can open a folder."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # the file system has no hard links
        shutil.copyfile(path, target)
        with target.open("rb+") as stream:
            os.fsync(stream.fileno())


def _rename(path: Path, target: Path, checksums: list[str]) -> None:
    if not checksums:
        _sidecar(target).unlink(missing_ok=True)
        os.replace(path, target)
        return

    write_checksums(target, [*checksums, *read_checksums(target)])
    os.replace(path, target)
    write_checksums(target, checksums)


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
