"""Lightning plugin that writes checkpoints atomically, with SHA-256 sidecars."""

import contextlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from cls_callbacks.checkpointing.checkpoint_files import (
    compute_checksum,
    flush_folder,
    read_checksums,
    write_checksums,
)
from cls_callbacks.checkpointing.migration import migrate_checkpoint
from cls_export.contract.files import open_atomically

_OPEN_FILES = Path("/dev/fd")
"""Names of the open files of this process, on systems that have them."""


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
        _serialize(checkpoint, stream)
        checksum = _flush_and_hash(stream)
        # The process may die before the rename that follows, so the old checksum stays valid too.
        write_checksums(target, [checksum, *read_checksums(target)])

    write_checksums(target, [checksum])
    flush_folder(target.parent)


def _serialize(checkpoint: dict[str, Any], stream: IO[bytes]) -> None:
    """Save to the open file.

    `torch.save` calls a Python stream thousands of times, and each time it takes the interpreter
    from the thread that trains. A file with a path it writes without Python, but then it does not
    give the reason of an error (torch 2.15).
    """
    if _OPEN_FILES.is_dir():
        try:
            # The name of the draft would be in the checkpoint, and with it the name of this host.
            torch.save(checkpoint, _OPEN_FILES / str(stream.fileno()))
            return
        except RuntimeError:
            stream.truncate(0)
    torch.save(checkpoint, stream)


def _flush_and_hash(stream: IO[bytes]) -> str:
    """Flush the file to disk, and compute its checksum at the same time."""
    with ThreadPoolExecutor(1, thread_name_prefix="flush") as pool:
        flushing = pool.submit(os.fsync, stream.fileno())
        checksum = compute_checksum(Path(stream.name))
        flushing.result()  # an error of the disk is reported only once
    return checksum


def _not_saved(target: Path, error: OSError) -> CheckpointNotSavedError:
    message = f"{target} was not saved: {error.strerror or error}"

    with contextlib.suppress(OSError):  # the folder may not exist
        free_bytes = shutil.disk_usage(target.parent).free
        message += f" ({free_bytes / 1e6:.0f} MB free)"

    if target.exists():
        message += f"; the existing {target.name} is unchanged"

    return CheckpointNotSavedError(message)
