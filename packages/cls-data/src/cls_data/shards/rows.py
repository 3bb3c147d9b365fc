"""Training rows in shards, with the interface of the rows of an image store."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from loguru import logger
from torch import Tensor

from cls_data.errors import DataError
from cls_data.images.store import ImageStore
from cls_data.shards.block_cache import BlockCache, CacheSettings
from cls_data.shards.index import INDEX_FILE, ShardIndex
from cls_data.shards.storage import RETRY_SECONDS, START_SECONDS, Storage


@dataclass(frozen=True, eq=False)
class ShardRows:
    """Pixels of N rows in shards; a cache holds the blocks of some of them."""

    index: ShardIndex
    cache: BlockCache

    @property
    def pixels(self) -> Tensor:
        """Always raise a `DataError`, because the rows are not in one array."""
        raise DataError("Training images in shards (data.shards) are not in memory as a whole")

    def gather(self, index: Tensor, *, pinned: bool = False) -> Tensor:
        """Return some rows: uint8 [B, 3, H, W] for int64 [B].

        Raises:
            DataError: A shard is missing, damaged, or cannot be read, or the disk is full.
        """
        shape = (len(index), *self.index.shape)
        rows = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        block_rows = self.index.block_rows
        blocks = index // block_rows
        for block in sorted(set(blocks.tolist())):
            places = torch.nonzero(blocks == block).squeeze(1)
            inside = index[places] - block * block_rows
            rows[places] = self.cache.get(block).index_select(0, inside)
        return rows

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process needs its own threads and connections, and shares the files.
        return _open_again, (self.index, self.cache.settings)


def _open_again(index: ShardIndex, settings: CacheSettings) -> ShardRows:
    return ShardRows(index, BlockCache(index, settings))


def open_shards(
    url: str,
    folder: Path,
    *,
    max_bytes: int,
    window: int,
    retry_seconds: float = RETRY_SECONDS,
) -> ImageStore:
    """Open the shards at a URL; reads the index only.

    Args:
        url: Folder that `cls-data shard` has written.
        folder: Folder for copies of blocks. Each set of shards has a subfolder.
        max_bytes: Limit of the copies of one set of shards.
        window: Blocks of a window of the shuffle.
        retry_seconds: How long an unreachable server is tried again.

    Raises:
        DataError: The index is missing or damaged, or two windows do not fit into `max_bytes`.
    """
    storage = Storage.open(url, retry_seconds=min(retry_seconds, START_SECONDS))
    content = storage.read(INDEX_FILE)
    index = ShardIndex.from_bytes(content, f"{url.rstrip('/')}/{INDEX_FILE}")
    if index.pillow != PIL.__version__:
        logger.warning(
            "data.shards: the images were decoded by Pillow {}, and this is Pillow {}, which may "
            "resize some images one level differently",
            index.pillow,
            PIL.__version__,
        )

    num_blocks = min(2 * window, index.num_blocks) + 1
    if num_blocks * index.block_bytes > max_bytes:
        raise DataError(
            f"data.shard_cache_gigabytes={max_bytes / 1e9:g}: two windows of {window} blocks need "
            f"{num_blocks * index.block_bytes / 1e9:.3g} GB; raise it, or lower data.shard_window"
        )
    key = hashlib.sha256(content).hexdigest()[:16]
    settings = CacheSettings(url, folder / key, max_bytes, window, retry_seconds)
    digests = index.digests.view("V32").ravel().tolist()
    rows = _open_again(index, settings)
    return ImageStore(rows, index.sizes.astype(np.int64), digests)
