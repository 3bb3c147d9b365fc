"""Lightning plugin that writes checkpoints atomically, with SHA-256 sidecars."""

import contextlib
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from cls_callbacks.checkpointing.checkpoint_files import (
    flush_folder,
    read_checksums,
    write_checksums,
)
from cls_callbacks.checkpointing.migration import migrate_checkpoint
from cls_export.contract.files import open_atomically

_PARALLEL_BYTES = 1 << 20
"""Smaller pieces are not worth a thread."""


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
        with _HashingStream(stream) as hashing:
            destination: Any = hashing  # torch.save needs no more than its two methods
            torch.save(checkpoint, destination)
        checksum = hashing.checksum
        # The process may die before the rename that follows, so the old checksum stays valid too.
        write_checksums(target, [checksum, *read_checksums(target)])

    write_checksums(target, [checksum])
    flush_folder(target.parent)


class _HashingStream:
    """Write to a file, and compute the SHA-256 of what is written.

    The checksum of a large piece is computed in a second thread while the piece is written, so the
    file need not be read again. This works because `torch.save` never goes back in its file.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checksum")  # starts when needed

    def __enter__(self) -> "_HashingStream":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown()

    @property
    def checksum(self) -> str:
        """The SHA-256 of everything that was written, in hexadecimal digits."""
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        """Write all of the data, which is valid during this call only."""
        if len(data) < _PARALLEL_BYTES:
            self._digest.update(data)
            return self._stream.write(data)
        update = self._pool.submit(self._digest.update, data)
        try:
            return self._stream.write(data)
        finally:
            update.result()

    def flush(self) -> None:
        """Flush the file."""
        self._stream.flush()


def _not_saved(target: Path, error: OSError) -> CheckpointNotSavedError:
    message = f"{target} was not saved: {error.strerror or error}"

    with contextlib.suppress(OSError):  # the folder may not exist
        free_bytes = shutil.disk_usage(target.parent).free
        message += f" ({free_bytes / 1e6:.0f} MB free)"

    if target.exists():
        message += f"; the existing {target.name} is unchanged"

    return CheckpointNotSavedError(message)
