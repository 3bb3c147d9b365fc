"""A checkpoint is on disk whole, or the previous one still is; and whether it still is what was written."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO


class DamagedCheckpointError(ValueError):
    """A checkpoint's bytes are not those that were written."""


class CheckpointNotSavedError(OSError):
    """A checkpoint could not be written; the file that was there before is whole."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to the disk, then renames; `NAME.sha256` holds the file's checksum.

    Of a byte that a disk or a copy flips, `torch.load` notices little: the checksum is for `verify_checkpoint`, and for
    `sha256sum -c`.

    Lightning's own writes to the temporary folder first, which may be another file system: its copy onto the
    target is then not atomic, and it swallows some errors. Here every error reaches the caller.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        """Write one checkpoint; at any moment `path` holds the old file or the new one.

        Raises:
            CheckpointNotSavedError: the folder cannot be written or the disk is full; the previous file is untouched.
        """
        if storage_options is not None or "://" in str(path):
            raise ValueError(
                f"AtomicCheckpointIO writes to local folders alone, got {path} and {storage_options}"
            )
        target = Path(path)
        try:
            _write(checkpoint, target)
        except OSError as error:
            raise _not_saved(target, error.strerror or str(error)) from error
        except RuntimeError as error:
            # torch.save, which still closes its archive then, covers what the disk said by an error of its own.
            if not isinstance(error.__context__, OSError):
                raise
            raise _not_saved(
                target, error.__context__.strerror or str(error.__context__)
            ) from error


def _write(checkpoint: dict[str, Any], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with draft.open("wb") as stream:
            torch.save(checkpoint, stream)
            stream.flush()
            os.fsync(stream.fileno())
        checksum = _checksum(draft)
        # Both, since the process may die between the two renames; afterwards the new one alone.
        _write_checksums(target, [checksum, *_checksums(target)])
        os.replace(draft, target)
        _write_checksums(target, [checksum])
    finally:
        draft.unlink(missing_ok=True)
    _flush_folder(target.parent)


def _not_saved(target: Path, why: str) -> CheckpointNotSavedError:
    kept = f"; {target.name} is still that of before" if target.exists() else ""
    try:
        free = f" ({shutil.disk_usage(target.parent).free / 1e6:.0f} MB are free there)"
    except OSError:  # no such folder, say
        free = ""
    return CheckpointNotSavedError(f"{target} was not saved: {why}{free}{kept}")


def verify_checkpoint(path: Path) -> None:
    """Check a checkpoint against the checksum beside it; one without is taken as it is.

    Raises:
        DamagedCheckpointError: they do not fit.
        OSError: the file cannot be read.
    """
    written = _checksums(path)
    if written and _checksum(path) not in written:
        raise DamagedCheckpointError(
            f"{path}: its bytes are not those that were written ({_sidecar(path).name} holds their checksum)"
        )


def rename_checkpoint(path: Path, target: Path) -> None:
    """Rename a checkpoint, its checksum with it; whenever the process dies, what `target` then is verifies."""
    _rename(path, target, _checksums(path))
    _sidecar(path).unlink(missing_ok=True)


def duplicate_checkpoint(path: Path, target: Path) -> None:
    """Give a checkpoint a second name: no second file where the file system links, since no checkpoint is changed.

    Whenever the process dies, what `target` then is verifies.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        try:
            os.link(path, draft)
        except OSError:  # a file system without links
            shutil.copyfile(path, draft)
            with draft.open("rb+") as stream:
                os.fsync(stream.fileno())
        _rename(draft, target, _checksums(path))
    finally:
        draft.unlink(missing_ok=True)
    _flush_folder(target.parent)


def _rename(path: Path, target: Path, checksums: list[str]) -> None:
    if checksums:
        _write_checksums(target, [*checksums, *_checksums(target)])
    else:
        _sidecar(target).unlink(missing_ok=True)
    os.replace(path, target)
    if checksums:
        _write_checksums(target, checksums)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and its checksum."""
    path.unlink(missing_ok=True)
    _sidecar(path).unlink(missing_ok=True)


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _checksums(path: Path) -> list[str]:
    """Return what the file beside a checkpoint says that it may be; nothing where there is none."""
    try:
        return [line.split()[0] for line in _sidecar(path).read_text().splitlines() if line.strip()]
    except (FileNotFoundError, UnicodeDecodeError):
        return []


def _write_checksums(path: Path, checksums: list[str]) -> None:
    draft = _sidecar(path).with_name(f".{path.name}.sha256.{os.getpid()}")
    try:
        with draft.open("w") as stream:
            stream.writelines(f"{checksum}  {path.name}\n" for checksum in checksums)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, _sidecar(path))
    finally:
        draft.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system lets a folder be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
