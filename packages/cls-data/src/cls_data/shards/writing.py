"""Decode training images and write them as shards."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from loguru import logger
from numpy.typing import NDArray

from cls_data.annotations.quarantine import Quarantine
from cls_data.annotations.reading import Record
from cls_data.errors import DataError
from cls_data.gate import GateConfig, check
from cls_data.images.parallel import CHUNK_SIZE
from cls_data.images.store import StoreBuilder, write_store_file
from cls_data.images.store_file import StoreFile
from cls_data.shards.index import (
    INDEX_FILE,
    ShardIndex,
    describe_pixels,
    hash_ids,
    plan_blocks,
)
from cls_data.shards.storage import Storage
from cls_export.contract.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """Result of `write_shards`.

    Attributes:
        rows: Number of training rows.
        shards: Number of shards.
        num_bytes: Bytes of the pixels.
        num_reused: Shards that an interrupted command had written before.
    """

    rows: int
    shards: int
    num_bytes: int
    num_reused: int


def write_shards(
    root: str | Path,
    url: str,
    preprocessing: Preprocessing,
    *,
    annotations: str = "",
    quarantine: Quarantine | None = None,
    gate: GateConfig | None = None,
    workers: int = 1,
    progress: bool = False,
) -> ShardSummary:
    """Check the data of a root, and write its training images as shards.

    The index is written last. A repeated command skips the shards that are already there: the name
    of a shard is a hash of its image files and the preprocessing.

    Args:
        root: The data root, with all splits: the gate compares them.
        url: Folder to write to.
        preprocessing: Decodes and resizes images, as `data.stored_size` or the model's size says.
        annotations: Subfolder of the root with the split folders, such as `folds/0`.
        quarantine: Rows to leave out.
        gate: Policies and thresholds of the gate; None for the defaults.
        workers: Number of worker processes or threads; see `map_chunks`.
        progress: Show progress bars.

    Raises:
        DataError: The data fail the gate, an image cannot be decoded, or a file cannot be written.
    """
    storage = Storage.open(url)
    storage.check_writable()
    config = gate or GateConfig()
    report = check(
        root,
        preprocessing,
        config,
        annotations=annotations,
        quarantine=quarantine,
        layout="jsonl",
        workers=workers,
        progress=progress,
    )
    report.raise_for_errors()
    records: list[Record] = []
    digests: list[bytes] = []
    for row in report.inputs.rows:
        if row.split == "train":
            records.append(row.record)
            digests.append(report.inputs.files.file_digests[row.file])
    if not records:
        raise DataError(f"{root}: no training rows; shards hold the images of train")

    is_strict = config.damaged_images == "error"
    height, width = preprocessing.size
    shape = (3, height, width)
    block_rows, blocks_per_shard = plan_blocks(shape)
    rows_per_shard = block_rows * blocks_per_shard
    writer = _ShardWriter(storage, preprocessing, is_strict, workers, progress)
    for start in range(0, len(records), rows_per_shard):
        stop = start + rows_per_shard
        writer.write(records[start:stop], digests[start:stop])

    index = ShardIndex(
        rows=len(records),
        shape=shape,
        block_rows=block_rows,
        blocks_per_shard=blocks_per_shard,
        shards=tuple(writer.names),
        ids_sha256=hash_ids(records),
        pixels=describe_pixels(preprocessing),
        pillow=PIL.__version__,
        is_strict=is_strict,
        fingerprint=report.fingerprint,
        sizes=np.concatenate(writer.sizes).astype(np.int32),
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
        checksums=np.array(writer.checksums, np.uint32),
    )
    storage.write(INDEX_FILE, index.to_bytes())
    return ShardSummary(
        rows=len(records),
        shards=len(writer.names),
        num_bytes=len(records) * index.row_bytes,
        num_reused=writer.num_reused,
    )


class _ShardWriter:
    """Writes shards one after the other, and collects the arrays of the index."""

    def __init__(
        self,
        storage: Storage,
        preprocessing: Preprocessing,
        is_strict: bool,
        workers: int,
        progress: bool,
    ) -> None:
        self._storage = storage
        self._preprocessing = preprocessing
        self._is_strict = is_strict
        self._workers = workers
        self._progress = progress
        self.names: list[str] = []
        self.sizes: list[NDArray[np.int64]] = []
        self.checksums: list[int] = []
        self.num_reused = 0

    def write(self, records: Sequence[Record], digests: Sequence[bytes]) -> None:
        """Write one shard, unless it exists."""
        number = len(self.names) + 1
        builder = StoreBuilder(
            records=records,
            preprocessing=self._preprocessing,
            workers=self._workers,
            strict=self._is_strict,
            progress=f"shard {number}" if self._progress else None,
        )
        name = f"{builder.key(digests)}.shard"
        description = self._read_existing(name, builder.shape)
        if description is None:
            description = self._build(name, builder, digests)
        else:
            self.num_reused += 1

        sizes, checksums = description
        self.names.append(name)
        self.sizes.append(sizes)
        self.checksums += checksums

    def _read_existing(
        self, name: str, shape: tuple[int, int, int, int]
    ) -> tuple[NDArray[np.int64], Sequence[int]] | None:
        """Return sizes and checksums of a shard that was written before; None if there is none."""
        num_bytes = self._storage.size(name)
        if num_bytes is None:
            return None
        try:
            with self._storage.stream(name) as stream:
                return StoreFile(Path(name), shape).read_description(stream, CHUNK_SIZE)
        except ValueError as error:
            logger.warning("{}: an unfinished shard ({}); writing it again", name, error)
            return None

    def _build(
        self, name: str, builder: StoreBuilder, digests: Sequence[bytes]
    ) -> tuple[NDArray[np.int64], Sequence[int]]:
        """Decode the images into a temporary file, and upload it."""
        with tempfile.TemporaryDirectory(prefix="cls-data-shard-") as folder:
            file = StoreFile(Path(folder) / name, builder.shape)
            try:
                result: Any = write_store_file(builder, file, list(digests))
            except OSError as error:
                raise DataError(
                    f"{folder}: {file.length / 1e9:.2f} GB of decoded images cannot be written "
                    f"({error.strerror}). Free some space, or set TMPDIR to another folder"
                ) from error
            self._storage.upload(file.path, name)
        return result.sizes, result.checksums
