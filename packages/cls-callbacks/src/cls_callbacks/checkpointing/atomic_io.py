"""Write checkpoints atomically, with SHA-256 sidecars."""

import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from cls_callbacks.checkpointing.migration import migrate_checkpoint
from cls_export.contract.files import open_atomically, write_atomically


class DamagedCheckpointError(ValueError):
    """A checkpoint does not match its SHA-256 checksum."""


class CheckpointNotSavedError(OSError):
    """A checkpoint could not be written; an older file of that name is unchanged."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Save checkpoints atomically, each with its checksum in `NAME.sha256`.

    The checksum detects damage that `torch.load` does not notice, such as a flipped bit in the
    weights. Check it with `verify_checkpoint` or with `sha256sum -c`.

    Lightning's own `TorchCheckpointIO` writes to the temporary folder first. If that is another
    file system, copying to the target is not atomic, and some errors are swallowed
    (lightning 2.6.6).

    Loading also accepts checkpoints of version 0.1.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        """Write a checkpoint; `path` holds the complete old file or the complete new one.

        Raises:
            CheckpointNotSavedError: The folder cannot be written, or the disk is full.
            ValueError: The path is remote, or storage options are given.
        """
        if storage_options is not None or "://" in str(path):
            raise ValueError(
                f"AtomicCheckpointIO writes to local folders only, got path {path} "
                f"and storage_options {storage_options}"
            )
        target = Path(path)
        try:
            _write(checkpoint, target)
        except OSError as error:
            raise _not_saved(target, error) from error
        except RuntimeError as error:
            # torch.save raises this error while closing its archive, in place of an OSError.
            if not isinstance(error.__context__, OSError):
                raise
            raise _not_saved(target, error.__context__) from error

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint, and migrate it if an older version wrote it."""
        checkpoint: dict[str, Any] = super().load_checkpoint(*args, **kwargs)
        migrate_checkpoint(checkpoint)
        return checkpoint


def _write(checkpoint: dict[str, Any], target: Path) -> None:
    with open_atomically(target) as stream:
        torch.save(checkpoint, stream)
        stream.flush()
        draft = Path(stream.name)
        checksum = _compute_checksum(draft)
        # The process may die before the rename that follows, so the old checksum stays valid too.
        _write_checksums(target, [checksum, *_read_checksums(target)])

    _write_checksums(target, [checksum])
    _flush_folder(target.parent)


def _not_saved(target: Path, error: OSError) -> CheckpointNotSavedError:
    message = f"{target} was not saved: {error.strerror or error}"

    with contextlib.suppress(OSError):  # the folder may not exist
        free_bytes = shutil.disk_usage(target.parent).free
        message += f" ({free_bytes / 1e6:.0f} MB free)"

    if target.exists():
        message += f"; the existing {target.name} is unchanged"

    return CheckpointNotSavedError(message)


def verify_checkpoint(path: Path) -> None:
    """Check a checkpoint against its checksum; a file without a checksum passes.

    Raises:
        DamagedCheckpointError: The checksum does not match.
        OSError: The file cannot be read.
    """
    checksums = _read_checksums(path)
    if checksums and _compute_checksum(path) not in checksums:
        raise DamagedCheckpointError(
            f"{path}: SHA-256 does not match {_sidecar(path).name}; the file is damaged"
        )


def rename_checkpoint(path: Path, target: Path) -> None:
    """Rename a checkpoint and its checksum; `target` verifies even if the process dies."""
    _rename(path, target, _read_checksums(path))
    _sidecar(path).unlink(missing_ok=True)


def duplicate_checkpoint(path: Path, target: Path) -> None:
    """Create a second name for a checkpoint: a hard link, or a copy if links are not supported.

    `target` verifies even if the process dies.
    """
    checksums = _read_checksums(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        _link_or_copy(path, draft)
        _rename(draft, target, checksums)
    finally:
        draft.unlink(missing_ok=True)
    _flush_folder(target.parent)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and its checksum."""
    path.unlink(missing_ok=True)
    _sidecar(path).unlink(missing_ok=True)


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

    _write_checksums(target, [*checksums, *_read_checksums(target)])
    os.replace(path, target)
    _write_checksums(target, checksums)


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _compute_checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_checksums(path: Path) -> list[str]:
    """Return the checksums that are valid for a checkpoint; none without a sidecar."""
    try:
        lines = _sidecar(path).read_text().splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return []

    return [line.split()[0] for line in lines if line.strip()]


def _write_checksums(path: Path, checksums: list[str]) -> None:
    """Write the sidecar in the format of `sha256sum`."""
    content = ""
    for checksum in checksums:
        content += f"{checksum}  {path.name}\n"
    write_atomically(_sidecar(path), content.encode())


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power failure, on systems that can open a folder."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
