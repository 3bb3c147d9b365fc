"""Read shuffled batches from shards, and compare with litdata where it is installed.

Command:  uv run python benchmarks/shards.py    (about a minute, 2 GB in a temporary folder)
          uv run --with litdata python benchmarks/shards.py --litdata
Expected: a table of images/s. Shards from a folder, with an empty cache and with a full one; with
          --litdata also litdata 0.2 with one block of rows per item, and the row order of shards.

Reads from a local folder, so that the figures are those of the software and of two cores, not of a
network: a network of 1 Gbit/s brings 27,000 images of 48x32 px a second, or 830 of 224x224.
"""

import argparse
import math
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch

from cls_data.images.parallel import CHUNK_SIZE
from cls_data.images.store_file import StoreFile
from cls_data.loading.block_sampler import BlockSampler
from cls_data.shards.index import INDEX_FILE, ShardIndex, plan_blocks
from cls_data.shards.rows import ShardRows, open_shards
from cls_data.shards.shuffling import shuffle_in_windows

SIZES = {"48x32": (3, 48, 32), "224x224": (3, 224, 224)}
WINDOW = 16
BATCH = 64


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=0.5, help="pixels of each size")
    parser.add_argument("--litdata", action="store_true", help="also measure litdata")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'rows':<10}{'reader':<44}{'images/s':>10}")
    for name, shape in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            rows = int(options.gigabytes * 1e9) // math.prod(shape)
            root = Path(folder)
            write_random_shards(root / "shards", rows, shape)
            for round_name in ("empty cache", "full cache"):
                speed = measure(read_shards(root / "shards", root / "cache"))
                print_row(name, f"shards, {round_name}", speed)
            if options.litdata:
                measure_litdata(name, root, rows, shape)


def print_row(name: str, reader: str, speed: float) -> None:
    """Print one row."""
    print(f"{name:<10}{reader:<44}{speed:>10,.0f}", flush=True)


def measure(batches: Iterator[int]) -> float:
    """Return images a second of an iterator over the sizes of batches."""
    started = time.perf_counter()
    images = sum(batches)
    return images / (time.perf_counter() - started)


def block_of(number: int, rows: int, shape: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """Return random pixels of a block: uint8 [rows, 3, H, W]."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (rows, *shape), dtype=np.uint8)


def write_random_shards(folder: Path, rows: int, shape: tuple[int, int, int]) -> None:
    """Write shards of random pixels."""
    block_rows, blocks_per_shard = plan_blocks(shape)
    rows_per_shard = block_rows * blocks_per_shard
    names = []
    checksums: list[int] = []
    for number, start in enumerate(range(0, rows, rows_per_shard)):
        count = min(rows_per_shard, rows - start)
        names.append(f"{number}.shard")
        own: list[int] = []
        with StoreFile(folder / names[-1], (count, *shape)).open_draft() as draft:
            for first in range(0, count, CHUNK_SIZE):
                pixels = block_of(start + first, min(CHUNK_SIZE, count - first), shape)
                draft.write_at(first * math.prod(shape), pixels)
                own.append(zlib.crc32(pixels.data))
            draft.finish(np.zeros((count, 2), np.int64), own)
        checksums += own
    index = ShardIndex(
        rows=rows,
        shape=shape,
        block_rows=block_rows,
        blocks_per_shard=blocks_per_shard,
        shards=tuple(names),
        ids_sha256="",
        pixels="{}",
        pillow=PIL.__version__,
        is_strict=True,
        fingerprint="",
        sizes=np.zeros((rows, 2), np.int32),
        digests=np.zeros((rows, 32), np.uint8),
        checksums=np.array(checksums, np.uint32),
    )
    (folder / INDEX_FILE).write_bytes(index.to_bytes())


def read_shards(folder: Path, cache: Path) -> Iterator[int]:
    """Read an epoch, as training does; yield the sizes of the batches."""
    rows = open_shards(str(folder), cache, max_bytes=10**10, window=WINDOW).rows
    assert isinstance(rows, ShardRows)
    for plan in BlockSampler(rows, WINDOW, BATCH, seed=0):
        yield len(rows.gather(plan.index))
    rows.cache.close()


class MakeBlock:
    """Makes the items of a litdata data set: blocks of rows, as bytes."""

    def __init__(self, rows: int, shape: tuple[int, int, int]) -> None:
        self.rows = rows
        self.shape = shape

    def __call__(self, number: int) -> dict[str, Any]:
        """Return one item."""
        return {"pixels": block_of(number, self.rows, self.shape).tobytes()}


def measure_litdata(name: str, root: Path, rows: int, shape: tuple[int, int, int]) -> None:
    """Print rows for litdata, with blocks and windows like those of shards."""
    import litdata

    block_rows, blocks_per_shard = plan_blocks(shape)
    blocks = max(1, rows // block_rows)
    data = root / "litdata"
    litdata.optimize(
        MakeBlock(block_rows, shape),
        inputs=list(range(blocks)),
        output_dir=str(data),
        chunk_size=blocks_per_shard,
        num_workers=1,
    )

    def open_dataset(cache: str) -> Any:
        return litdata.StreamingDataset(
            input_dir=f"local:{data}", cache_dir=str(root / cache), shuffle=False
        )

    def to_tensor(item: dict[str, Any]) -> torch.Tensor:
        flat = torch.frombuffer(bytearray(item["pixels"]), dtype=torch.uint8)
        return flat.view(block_rows, *shape)

    def gather_windows(read: Callable[[int], torch.Tensor]) -> Iterator[int]:
        order = shuffle_in_windows(blocks * block_rows, block_rows, WINDOW, seed=0)
        loaded: dict[int, torch.Tensor] = {}
        for index in order.rows.split(BATCH):
            numbers = index // block_rows
            batch = torch.empty((len(index), *shape), dtype=torch.uint8)
            for number in numbers.unique().tolist():
                if number not in loaded:
                    loaded[number] = read(number)
                    if len(loaded) > 2 * WINDOW:
                        del loaded[next(iter(loaded))]
                places = torch.nonzero(numbers == number).squeeze(1)
                batch[places] = loaded[number][index[places] - number * block_rows]
            yield len(batch)

    dataset = open_dataset("by-number")
    speed = measure(gather_windows(lambda number: to_tensor(dataset[number])))
    print_row(name, "litdata, blocks by number, rows shuffled", speed)
    dataset = open_dataset("in-order")
    speed = measure(len(to_tensor(item)) for item in dataset)
    print_row(name, "litdata, blocks in order, rows not shuffled", speed)


if __name__ == "__main__":
    main()
