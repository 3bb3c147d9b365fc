"""Index of a set of shards: which rows they hold, and the checksums of their blocks.

Layout of a folder of shards, at any URL that fsspec reads:

    <hash>.shard    a store file (see `images.store_file`) of consecutive training rows
    index.npz       written last, so a folder with an index is complete

A shard is read in blocks of rows, each a range of bytes. N is the number of training rows.
"""

import hashlib
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from cls_data.annotations.reading import Record
from cls_data.errors import DataError
from cls_data.images.parallel import CHUNK_SIZE
from cls_data.npz_files import parse_npz
from cls_export.contract.preprocessing import Preprocessing

INDEX_FILE = "index.npz"
MAX_INDEX_BYTES = 8 * 1024**3
"""About 100 million rows."""

_VERSION = 1
_BLOCK_BYTES = 8_000_000
"""Bytes of a block, at least: an object store answers smaller ranges at a lower rate."""

_SHARD_BYTES = 256_000_000
_SHARD_NAME = re.compile(r"[0-9a-z]+\.shard")
_ARRAYS = ("about", "sizes", "digests", "checksums")


class BlockRange(NamedTuple):
    """Where a block is: the shard's number, the bytes in it, and the rows of the split."""

    shard: int
    start: int
    stop: int
    first_row: int
    num_rows: int


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Rows, blocks, and shards.

    Attributes:
        rows: Number of training rows, N.
        shape: Channels, height, and width of a row.
        block_rows: Rows of a block; the last block may have fewer.
        blocks_per_shard: Blocks of a shard; the last shard may have fewer.
        shards: File name of each shard.
        ids_sha256: Hash of the ids of all rows, in order.
        pixels: Settings of the preprocessing that decide the pixels, as JSON.
        pillow: Version of Pillow that decoded the images.
        is_strict: Whether damaged images were refused instead of repaired.
        fingerprint: Fingerprint of all splits, which passed the data gate.
        sizes: Width and height of the image files, int32 [N, 2].
        digests: SHA-256 of the image files, uint8 [N, 32].
        checksums: CRC-32 of every 128 rows, uint32.
    """

    rows: int
    shape: tuple[int, int, int]
    block_rows: int
    blocks_per_shard: int
    shards: tuple[str, ...]
    ids_sha256: str
    pixels: str
    pillow: str
    is_strict: bool
    fingerprint: str
    sizes: NDArray[np.int32]
    digests: NDArray[np.uint8]
    checksums: NDArray[np.uint32]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape)

    @property
    def block_bytes(self) -> int:
        """Bytes of a whole block."""
        return self.block_rows * self.row_bytes

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return math.ceil(self.rows / self.block_rows)

    @property
    def rows_per_shard(self) -> int:
        """Rows of a whole shard."""
        return self.block_rows * self.blocks_per_shard

    def locate(self, block: int) -> BlockRange:
        """Return where a block is."""
        shard, place = divmod(block, self.blocks_per_shard)
        first_row = block * self.block_rows
        num_rows = min(self.block_rows, self.rows - first_row)
        start = place * self.block_bytes
        return BlockRange(shard, start, start + num_rows * self.row_bytes, first_row, num_rows)

    def block_checksums(self, block: int) -> list[int]:
        """Return the CRC-32 of every 128 rows of a block."""
        chunks_per_block = self.block_rows // CHUNK_SIZE
        start = block * chunks_per_block
        checksums: list[int] = self.checksums[start : start + chunks_per_block].tolist()
        return checksums

    def to_bytes(self) -> bytes:
        """Return the content of the index file."""
        about = {
            "version": _VERSION,
            "rows": self.rows,
            "shape": self.shape,
            "block_rows": self.block_rows,
            "blocks_per_shard": self.blocks_per_shard,
            "shards": self.shards,
            "ids_sha256": self.ids_sha256,
            "pixels": self.pixels,
            "pillow": self.pillow,
            "is_strict": self.is_strict,
            "fingerprint": self.fingerprint,
        }
        text = json.dumps(about).encode()
        stream = io.BytesIO()
        np.savez(
            stream,
            about=np.frombuffer(text, np.uint8),
            sizes=self.sizes,
            digests=self.digests,
            checksums=self.checksums,
        )
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> Self:
        """Parse the content of the index file `name`.

        Raises:
            DataError: It is damaged, or of a later version.
        """
        arrays = parse_npz(content, name, max_bytes=MAX_INDEX_BYTES)
        try:
            if sorted(arrays) != sorted(_ARRAYS):
                raise ValueError(f"it has the arrays {', '.join(sorted(arrays))}")
            about = json.loads(arrays.pop("about").tobytes())
            version = about.pop("version")
            if version != _VERSION:
                raise ValueError(f"version {version}; this cls-data reads version {_VERSION}")
            about["shape"] = tuple(about["shape"])
            about["shards"] = tuple(about["shards"])
            index = cls(**about, **arrays)  # type: ignore[arg-type]
            index._check()
        except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise DataError(
                f"{name}: not an index of shards, or damaged ({error}); write the shards again "
                "with `cls-data shard`"
            ) from error
        return index

    def _check(self) -> None:
        """Raise a `ValueError` if values are impossible, or lengths contradict each other."""
        numbers = (self.rows, self.block_rows, self.blocks_per_shard, *self.shape)
        if not all(type(number) is int and 0 < number < 2**40 for number in numbers):
            raise ValueError(f"numbers {numbers}, expected positive integers")
        for name in self.shards:
            if not _SHARD_NAME.fullmatch(name):
                raise ValueError(f"a shard is named {name!r}")
        dtypes = {"sizes": np.int32, "digests": np.uint8, "checksums": np.uint32}
        for key, dtype in dtypes.items():
            if getattr(self, key).dtype != dtype:
                raise ValueError(f"{key} has dtype {getattr(self, key).dtype}")

        num_shards = math.ceil(self.rows / self.rows_per_shard)
        num_chunks = math.ceil(self.rows / CHUNK_SIZE)
        expected: dict[str, Any] = {
            "shards": (len(self.shards), num_shards),
            "sizes": (self.sizes.shape, (self.rows, 2)),
            "digests": (self.digests.shape, (self.rows, 32)),
            "checksums": (self.checksums.shape, (num_chunks,)),
            "block_rows": (self.block_rows % CHUNK_SIZE, 0),
            "channels": (self.shape[0], 3),
        }
        for key, (given, wanted) in expected.items():
            if given != wanted:
                raise ValueError(f"{key}: {given}, expected {wanted}")

    def check_rows(self, records: Sequence[Record], url: str) -> None:
        """Raise a `DataError` if the shards hold other rows than these, or in another order."""
        if len(records) == self.rows and hash_ids(records) == self.ids_sha256:
            return
        difference = f"{len(records)} training rows instead of {self.rows}"
        if len(records) == self.rows:
            difference = "other training rows, or the same in another order"
        raise DataError(
            f"data.shards={url}: the annotations have {difference}. Use the annotations, "
            "data.annotations, and data.quarantine of `cls-data shard`, or write the shards again"
        )

    def check_pixels(self, preprocessing: Preprocessing, url: str, *, is_strict: bool) -> None:
        """Raise a `DataError` if a preprocessing would give other pixels than the shards hold."""
        wanted = json.loads(describe_pixels(preprocessing))
        given = json.loads(self.pixels)
        wanted["damaged images"] = "refused" if is_strict else "repaired"
        given["damaged images"] = "refused" if self.is_strict else "repaired"
        differences = []
        for key in wanted:
            if wanted[key] != given.get(key):
                differences.append(f"{key} is {given.get(key)}, but the run needs {wanted[key]}")
        if differences:
            raise DataError(
                f"data.shards={url}: the stored pixels differ: {'; '.join(differences)}. Write "
                "shards for these settings with `cls-data shard`, or change the run's (data."
                "stored_size is the size of stored training images)"
            )


def plan_blocks(shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return the rows of a block, a multiple of 128, and the blocks of a shard."""
    chunk_bytes = CHUNK_SIZE * math.prod(shape)
    block_rows = CHUNK_SIZE * math.ceil(_BLOCK_BYTES / chunk_bytes)
    block_bytes = block_rows * math.prod(shape)
    return block_rows, max(1, _SHARD_BYTES // block_bytes)


def hash_ids(records: Sequence[Record]) -> str:
    """Return the hexadecimal SHA-256 of the ids of rows, in order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.id.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def describe_pixels(preprocessing: Preprocessing) -> str:
    """Return the settings that decide the pixels, as JSON."""
    return preprocessing.model_dump_json(exclude={"mean", "std", "max_pixels"})
