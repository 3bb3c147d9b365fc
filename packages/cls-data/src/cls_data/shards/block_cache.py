"""Local copies of blocks, within a limit of bytes, fetched before they are needed."""

import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cls_data.errors import DataError
from cls_data.images.parallel import CHUNK_SIZE
from cls_data.shards.file_lock import locked_file
from cls_data.shards.index import ShardIndex
from cls_data.shards.storage import Storage
from cls_export.contract.files import draft_path, remove_drafts

PREFETCH_THREAD = "shard prefetcher"

_SUFFIX = ".block"
_NUM_LOCKS = 64
_SECONDS_BETWEEN_TRIES = 5.0
_SECONDS_UNTIL_CLOSED = 5.0
"""A thread that still waits for the server then ends with the process."""

_NUM_THREADS = 4
"""Ranges that are read at the same time: one alone seldom reaches the rate of the network."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Where blocks come from and go to.

    Attributes:
        url: Folder of the shards.
        folder: Folder of the copies, which belongs to these shards.
        max_bytes: Limit of all copies.
        window: Blocks of a window of the shuffle.
        retry_seconds: How long an unreachable server is tried again.
    """

    url: str
    folder: Path
    max_bytes: int
    window: int
    retry_seconds: float


class BlockCache:
    """The blocks of a set of shards, as files in a folder that processes of a node share.

    A block is fetched once: whoever locks it first writes it, and the others map the file. When
    the limit is reached, the block that is needed last is deleted, here and in all processes,
    because they read the same blocks in the same order.

    Args:
        index: Describes the blocks.
        settings: Where blocks come from and go to.

    Raises:
        DataError: The URL cannot be used, or the folder cannot be created.
    """

    def __init__(self, index: ShardIndex, settings: CacheSettings) -> None:
        self.settings = settings
        self._index = index
        self._storage = Storage.open(settings.url, retry_seconds=settings.retry_seconds)
        self._impatient_storage = replace(self._storage, retry_seconds=0)
        self._folder = settings.folder
        self._max_bytes = settings.max_bytes
        self._window = settings.window
        self._lock = threading.Lock()
        self._maps: OrderedDict[int, Tensor] = OrderedDict()
        self._plan = _Plan([], [])
        self._fetched: set[int] = set()
        self._wakeup = threading.Condition()
        self._threads: list[threading.Thread] = []
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_drafts(self._folder)
        except OSError as error:
            raise self._disk_error(error) from error

    def get(self, block: int) -> Tensor:
        """Return a block: uint8 [rows, 3, H, W], mapped from its file, fetched if it is missing.

        Raises:
            DataError: The shard is damaged or cannot be read, or the disk is full.
        """
        with self._lock:
            pixels = self._maps.pop(block, None)
        if pixels is None:
            pixels = self._load(block)
        with self._lock:
            self._maps[block] = pixels
            while len(self._maps) > 2 * self._window:
                self._maps.popitem(last=False)
        return pixels

    def _load(self, block: int) -> Tensor:
        for _ in range(3):
            self._fetch(block, self._storage)
            pixels = self._map(block)
            if pixels is not None:
                return pixels
        raise DataError(
            f"{self._folder}: the copy of block {block} was damaged or deleted three times; "
            "delete the folder, or choose another data.shard_cache"
        )

    def _map(self, block: int) -> Tensor | None:
        """Map a file; None if another process deleted it, or it is damaged and was deleted."""
        span = self._index.locate(block)
        path = self._path(block)
        num_bytes = span.stop - span.start
        try:
            # Mapping past the end of the file would crash the process.
            is_whole = path.stat().st_size == num_bytes
            if is_whole:
                flat = torch.from_file(str(path), shared=False, size=num_bytes, dtype=torch.uint8)
                pixels = flat.view(span.num_rows, *self._index.shape)
                if block in self._fetched or self._find_damage(block, pixels) is None:
                    self._fetched.add(block)
                    return pixels
            path.unlink(missing_ok=True)  # a crash of the machine can damage a file
        except (FileNotFoundError, RuntimeError):
            pass
        return None

    def _find_damage(self, block: int, pixels: Tensor) -> str | None:
        span = self._index.locate(block)
        levels = pixels.numpy()
        for number, checksum in enumerate(self._index.block_checksums(block)):
            start = number * CHUNK_SIZE
            rows = levels[start : start + CHUNK_SIZE]
            if zlib.crc32(rows.data) != checksum:
                first = span.first_row + start
                return f"wrong checksum of rows {first} to {first + len(rows) - 1}"
        return None

    def _fetch(self, block: int, storage: Storage) -> None:
        """Write a block's file unless it exists, whichever thread or process does it."""
        path = self._path(block)
        if path.exists():
            return
        try:
            with locked_file(self._folder / f".lock-{block % _NUM_LOCKS}"):
                if not path.exists():
                    content = self._download(block, storage)
                    with locked_file(self._folder / ".lock-room"):
                        self._make_room(len(content))
                        _write(path, content)
                    self._fetched.add(block)
        except OSError as error:
            raise self._disk_error(error) from error

    def _download(self, block: int, storage: Storage) -> bytearray:
        """Read a block from its shard, once more if it arrives damaged."""
        span = self._index.locate(block)
        name = self._index.shards[span.shard]
        damage = None
        for _ in range(2):
            content = bytearray(storage.read_range(name, span.start, span.stop))
            pixels = torch.frombuffer(content, dtype=torch.uint8)
            damage = self._find_damage(block, pixels.view(span.num_rows, *self._index.shape))
            if damage is None:
                return content
        raise DataError(
            f"{self._storage.url.rstrip('/')}/{name}: the shard is damaged ({damage}). Delete it, "
            "and run `cls-data shard` again, which writes missing shards"
        )

    def _make_room(self, num_bytes: int) -> None:
        """Delete blocks that are needed last until some bytes fit."""
        with self._lock:
            blocks = list(self._list_blocks())
            blocks.sort(key=self._plan.next_use)
            used = len(blocks) * self._index.block_bytes
            while blocks and used + num_bytes > self._max_bytes:
                block = blocks.pop()
                self._path(block).unlink(missing_ok=True)
                self._fetched.discard(block)
                self._maps.pop(block, None)
                used -= self._index.block_bytes

    def _list_blocks(self) -> Iterator[int]:
        for name in os.listdir(self._folder):  # noqa: PTH208
            stem = name.removesuffix(_SUFFIX)
            if stem != name and stem.isdecimal():
                yield int(stem)

    def _path(self, block: int) -> Path:
        return self._folder / f"{block}{_SUFFIX}"

    def _disk_error(self, error: OSError) -> DataError:
        return DataError(
            f"{error.filename or self._folder}: blocks of shards cannot be written "
            f"({error.strerror or error}). Free some space, lower data.shard_cache_gigabytes, or "
            "choose another folder with data.shard_cache"
        )

    def plan(self, order: Tensor, following: Tensor, first_row: int) -> None:
        """Fetch blocks in the order of an epoch from now on, as far as the next two windows.

        Args:
            order: Blocks of the epoch, int64 [K].
            following: Blocks of the epoch after it, int64 [K].
            first_row: Number of rows of the epoch that were read before.
        """
        with self._wakeup:
            self._plan = _Plan(order.tolist(), following.tolist())
            self._move(first_row)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            while len(self._threads) < _NUM_THREADS:
                thread = threading.Thread(
                    target=self._fetch_planned, name=PREFETCH_THREAD, daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def advance(self, row: int) -> None:
        """State that the first `row` rows of the epoch were read."""
        with self._wakeup:
            self._move(row)

    def _move(self, row: int) -> None:
        plan = self._plan
        window = row // self._index.block_rows // self._window
        plan.position = window * self._window
        limit = plan.position + 2 * self._window
        if limit > plan.limit:
            plan.cursor = max(plan.cursor, plan.position)
            plan.limit = limit
            self._wakeup.notify_all()

    def close(self) -> None:
        """Stop fetching before blocks are needed."""
        with self._wakeup:
            self._plan = _Plan([], [])
            self._plan.is_closed = True
            self._wakeup.notify_all()
        for thread in self._threads:
            thread.join(_SECONDS_UNTIL_CLOSED)

    def _fetch_planned(self) -> None:
        while True:
            with self._wakeup:
                while not self._plan.is_closed and not self._plan.has_next():
                    self._wakeup.wait()
                if self._plan.is_closed:
                    return
                block = self._plan.take_next()
            self._fetch_until_closed(block)

    def _is_closed(self) -> bool:
        return self._plan.is_closed

    def _fetch_until_closed(self, block: int) -> None:
        """Fetch a block. The reader of the block meets an error, too, and reports it."""
        while True:
            try:
                self._fetch(block, self._impatient_storage)
            except DataError:
                with self._wakeup:
                    if self._wakeup.wait_for(self._is_closed, _SECONDS_BETWEEN_TRIES):
                        return
                continue
            return


def _write(path: Path, content: bytearray) -> None:
    """Write a whole file, without flushing it: checksums detect damage by a machine crash.

    Raises:
        OSError: The disk is full, for example.
    """
    draft = draft_path(path)
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


class _Plan:
    """The blocks of an epoch and of the next one, and how far they are fetched and read.

    Attributes:
        position: Number of the first block, in the order of reading, that is still needed.
        cursor: Number of the next block to fetch.
        limit: Number of the first block that is not fetched yet.
        is_closed: Whether threads are to end.
    """

    def __init__(self, order: list[int], following: list[int]) -> None:
        self._sequence = order + following
        self._ranks = {block: rank for rank, block in enumerate(order)}
        self._later = {block: len(order) + rank for rank, block in enumerate(following)}
        self.position = 0
        self.cursor = 0
        self.limit = 0
        self.is_closed = False

    def has_next(self) -> bool:
        return self.cursor < min(self.limit, len(self._sequence))

    def take_next(self) -> int:
        block = self._sequence[self.cursor]
        self.cursor += 1
        return block

    def next_use(self, block: int) -> int:
        """Return when a block is read next, as a rank; without a plan, blocks are read in order."""
        rank = self._ranks.get(block, -1)
        if rank >= self.position:
            return rank
        return self._later.get(block, -block)
