"""Lightning plugin that writes checkpoints atomically, with SHA-256 sidecars."""

import contextlib
import hashlib
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
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

_FLUSH_BYTES = 32 << 20
"""The disk starts to work after this many bytes, and not when all are written."""


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

    Large pieces are written, hashed, and flushed to disk at once, in three threads. So the file
    need not be read again, and flushing it at the end takes less time. This works because
    `torch.save` never goes back in its file.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="checksum")
        self._flushing = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self._flush: Future[None] | None = None
        self._unflushed_bytes = 0

    def __enter__(self) -> "_HashingStream":
        return self

    def __exit__(self, kind: type[BaseException] | None, *more: object) -> None:
        self._hashing.shutdown()
        self._flushing.shutdown()
        if kind is None and self._flush is not None:
            self._flush.result()

    @property
    def checksum(self) -> str:
        """The SHA-256 of everything that was written, in hexadecimal digits."""
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        """Write all of the data, which is valid during this call only."""
        if len(data) < _PARALLEL_BYTES:
            self._digest.update(data)
            return self._stream.write(data)
        update = self._hashing.submit(self._digest.update, data)
        try:
            size = self._stream.write(data)
        finally:
            update.result()
        self._unflushed_bytes += size
        self._flush_early()
        return size

    def flush(self) -> None:
        """Flush the file."""
        self._stream.flush()

    def _flush_early(self) -> None:
        if self._unflushed_bytes < _FLUSH_BYTES:
            return
        if self._flush is not None:
            if not self._flush.done():
                return
            self._flush.result()  # an error of the disk is reported only once
        self._unflushed_bytes = 0
        self._flush = self._flushing.submit(os.fsync, self._stream.fileno())


def _not_saved(target: Path, error: OSError) -> CheckpointNotSavedError:
    message = f"{target} was not saved: {error.strerror or error}"

    with contextlib.suppress(OSError):  # the folder may not exist
        free_bytes = shutil.disk_usage(target.parent).free
        message += f" ({free_bytes / 1e6:.0f} MB free)"

    if target.exists():
        message += f"; the existing {target.name} is unchanged"

    return CheckpointNotSavedError(message)
