"""Copy checkpoints to another folder or to a bucket."""

from pathlib import Path

import fsspec
from loguru import logger


class RemoteCopy:
    """Copy checkpoints of a run to a folder or an fsspec URL, such as `gs://bucket/runs`.

    Raises:
        ValueError: The URL's protocol is unknown, or the package for it is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            self._filesystem, self._root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"copy_to {url!r}: {error}") from error

        self._url = url

    def copy(self, checkpoint: Path, run_name: str) -> None:
        """Copy a checkpoint and its checksum to RUN_NAME/checkpoints; log a warning on failure."""
        folder = f"{self._root.rstrip('/')}/{run_name}/checkpoints"
        checksum = checkpoint.with_name(f"{checkpoint.name}.sha256")
        old_checksum = f"{folder}/{checksum.name}"
        try:
            self._filesystem.makedirs(folder, exist_ok=True)

            # A bucket cannot rename, so the old checksum goes first: it must not outlive its file.
            if self._filesystem.exists(old_checksum):
                self._filesystem.rm_file(old_checksum)

            for path in (checkpoint, checksum):
                if path.exists():
                    self._filesystem.put_file(str(path), f"{folder}/{path.name}")
        except Exception as error:  # each storage backend raises its own errors
            logger.warning(
                "could not copy {} to {}: {}. Training continues.", checkpoint, self._url, error
            )
