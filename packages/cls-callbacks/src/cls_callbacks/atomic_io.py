"""A checkpoint is on disk whole, or the previous one still is."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to the disk, then renames.

    Lightning's own writes to the temporary folder first, which may be another file system: its copy onto the
    target is then not atomic, and it swallows some errors. Here every error reaches the caller.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write one checkpoint; at any moment `path` holds the old file or the new one.

        Raises:
            OSError: the folder cannot be written or the disk is full; the previous file is untouched.
        """
        if storage_options is not None or "://" in str(path):
            raise ValueError(f"AtomicCheckpointIO writes to local folders alone, got {path} and {storage_options}")
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with draft.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(draft, target)
        finally:
            draft.unlink(missing_ok=True)
        _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system lets a folder be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
