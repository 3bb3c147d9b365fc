"""Decode once: every image of a split as rows of one contiguous uint8 array, in memory or in a mapped file.

N images, stored with height H and width W.
"""

import hashlib
import math
import mmap
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from cls_data.annotations.reading import Record
from cls_data.errors import DataError
from cls_data.images.decoding import StrictDecoder, quiet_decoding
from cls_data.images.parallel import CHUNK, map_chunks
from cls_data.images.store_file import StoreFile
from cls_export.contract.preprocessing import Preprocessing

_FORMAT = 1  # raise it when the same images and settings would give other pixels
_ADVICE = "Replace the files, or remove their rows; `cls-data check ROOT --quarantine FILE` writes a list of them."

_Write = Callable[[int, NDArray[np.uint8]], None]


@dataclass(frozen=True, slots=True)
class PixelRows:
    """The stored pixels, as loader workers get them: a forked or spawned worker reads the memory of its parent.

    Attributes:
        pixels: uint8 [N, 3, H, W].
        file: where they are mapped from; None for memory.
    """

    pixels: Tensor
    file: StoreFile | None = None

    def gather(self, index: Tensor, *, pinned: bool = False) -> Tensor:
        """Return some rows: int64 [B] to uint8 [B, 3, H, W].

        Args:
            index: of the rows.
            pinned: gather into page-locked memory, from where a CUDA device copies by itself. Gathered first and
                pinned afterwards, 256 images of 224 px took longer than a step of a ResNet-18 on them. A loader worker
                has none; its loader pins what it hands over.
        """
        shape = (len(index), *self.pixels.shape[1:])
        if get_worker_info() is None:
            rows = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        else:
            # A loader worker hands its batches over in shared memory: written there, they are not copied into it, and
            # leave no holes in the worker's own (torch.utils.data's default_collate does the same).
            memory = torch.UntypedStorage._new_shared(math.prod(shape))  # type: ignore[no-untyped-call]
            rows = self.pixels.new_empty(0).set_(memory).view(shape)
        return torch.index_select(self.pixels, 0, index, out=rows)

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapped file is mapped again; sent as a tensor, it would be copied into shared memory first.
        return (
            (PixelRows, (self.pixels, None)) if self.file is None else (_mapped_rows, (self.file,))
        )


@dataclass(frozen=True, slots=True)
class ImageStore:
    """The decoded and resized images of one split.

    Attributes:
        rows: the pixels, to be gathered from.
        sizes: int64 array [N, 2], width and height of each image before resizing, in pixels.
        digests: SHA-256 of each image file's bytes.
    """

    rows: PixelRows
    sizes: NDArray[np.int64]
    digests: Sequence[bytes]

    @classmethod
    def build(
        cls,
        records: Sequence[Record],
        preprocessing: Preprocessing,
        *,
        workers: int = 1,
        folder: str | os.PathLike[str] | None = None,
        strict: bool = True,
        progress: str | None = None,
    ) -> Self:
        """Decode and resize all images, or map the file that an earlier build of the very same pixels left.

        Args:
            records: the images, in row order.
            preprocessing: gives the pixels of one image.
            workers: processes that decode.
            folder: where files of stored pixels lie, each named by a hash of the images' bytes, their order and the
                preprocessing; None to keep the pixels in memory.
            strict: refuse images that the preprocessing's own decoder would repair.
            progress: text beside a progress bar; None for no bar.

        Raises:
            DataError: images that cannot be read or decoded, all of them named by file and line; or a disk that is
                full or cannot be written.
        """
        filling = _Filling(records, preprocessing, workers, strict, progress)
        return cls._in_memory(filling) if folder is None else cls._in_file(filling, Path(folder))

    @classmethod
    def _in_memory(cls, filling: "_Filling") -> Self:
        # Shared and anonymous: forked processes fill it, and no limit on /dev/shm applies.
        memory = mmap.mmap(-1, int(np.prod(filling.shape, dtype=np.int64)))
        flat = np.frombuffer(memory, np.uint8)

        def write(offset: int, pixels: NDArray[np.uint8]) -> None:
            flat[offset : offset + pixels.size] = pixels.ravel()

        filled = filling.fill(write)
        return cls(
            PixelRows(torch.frombuffer(memory, dtype=torch.uint8).view(filling.shape)),
            filled.sizes,
            filled.digests,
        )

    @classmethod
    def _in_file(cls, filling: "_Filling", folder: Path) -> Self:
        digests = filling.file_digests()
        file = StoreFile(folder / f"{filling.key(digests)}.store", filling.shape)
        sizes = file.load_sizes(CHUNK)
        if sizes is None:
            try:
                with file.draft() as draft:
                    filled = filling.fill(draft.write_at)
                    if filled.digests != digests:
                        raise DataError(
                            "image files changed while they were read; start again when nobody writes"
                        )
                    draft.finish(filled.sizes, filled.checksums)
            except OSError as error:
                raise DataError(
                    f"{folder}: {file.length / 1e9:.2f} GB of decoded images cannot be written ({error.strerror}); "
                    "free some space, name another folder with data.store=PATH, or use memory with data.store=null"
                ) from error
            sizes = filled.sizes
        return cls(_mapped_rows(file), sizes, digests)

    @property
    def pixels(self) -> Tensor:
        """All rows: uint8 [N, 3, H, W]."""
        return self.rows.pixels

    def __len__(self) -> int:
        return len(self.rows.pixels)

    def gather(self, index: Tensor) -> Tensor:
        """Return some rows: int64 [B] to uint8 [B, 3, H, W]."""
        return self.rows.gather(index)


def _mapped_rows(file: StoreFile) -> PixelRows:
    return PixelRows(file.map(), file)


class _Chunk(NamedTuple):
    """What a worker says of consecutive rows that it filled."""

    sizes: NDArray[np.int64]
    digests: list[bytes]
    checksum: int
    findings: list[str]


class _Filled(NamedTuple):
    """What is known of all rows, once they are filled."""

    sizes: NDArray[np.int64]
    digests: list[bytes]
    checksums: list[int]


@dataclass(frozen=True)
class _Filling:
    """Decoding the images of one split, wherever the pixels go."""

    records: Sequence[Record]
    preprocessing: Preprocessing
    workers: int
    strict: bool
    progress: str | None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.records), 3, *self.preprocessing.size)

    def key(self, digests: Sequence[bytes]) -> str:
        """Hash all that decides what the pixels are."""
        described = repr(
            (
                _FORMAT,
                self.preprocessing.pixels_id,
                self.preprocessing.size,
                self.strict,
                len(digests),
            )
        )
        return hashlib.sha256(described.encode() + b"".join(digests)).hexdigest()[:32]

    def file_digests(self) -> list[bytes]:
        """Hash the bytes of all images, without decoding them."""

        def work(start: int, stop: int) -> list[bytes]:
            return [_digest(record) for record in self.records[start:stop]]

        parts = map_chunks(work, len(self.records), workers=self.workers)
        return [digest for part in parts for digest in part]

    def fill(self, write: _Write) -> _Filled:
        """Decode and resize all images into `write(byte offset, rows)`."""
        decode = StrictDecoder(self.preprocessing) if self.strict else self.preprocessing.decode
        row_bytes = int(np.prod(self.shape[1:]))

        def work(start: int, stop: int) -> _Chunk:
            pixels = np.zeros((stop - start, *self.shape[1:]), np.uint8)
            chunk = _Chunk(np.zeros((stop - start, 2), np.int64), [], 0, [])
            for row, record in enumerate(self.records[start:stop]):
                data = b""
                try:
                    data = record.path.read_bytes()
                    image = decode(data)
                    pixels[row] = self.preprocessing.fit(image).transpose(2, 0, 1)
                    chunk.sizes[row] = image.size
                except (OSError, ValueError) as error:
                    chunk.findings.append(f"{record.source}: {record.id}: {error}")
                chunk.digests.append(hashlib.sha256(data).digest())
            write(start * row_bytes, pixels)
            return chunk._replace(checksum=zlib.crc32(pixels.data))

        with quiet_decoding():
            chunks = list(
                map_chunks(work, len(self.records), workers=self.workers, progress=self.progress)
            )
        if findings := [finding for chunk in chunks for finding in chunk.findings]:
            raise DataError.from_findings(
                f"{len(findings)} image(s) cannot be decoded", findings, _ADVICE
            )
        return _Filled(
            np.concatenate([chunk.sizes for chunk in chunks]),
            [digest for chunk in chunks for digest in chunk.digests],
            [chunk.checksum for chunk in chunks],
        )


def _digest(record: Record) -> bytes:
    try:
        return hashlib.sha256(record.path.read_bytes()).digest()
    except OSError:  # named with the others when it is to be decoded
        return hashlib.sha256().digest()
