"""Decode-once image store: one contiguous uint8 array per split, in memory or in a mapped file.

Shapes: N images of stored height H and width W.
"""

import contextlib
import hashlib
import math
import mmap
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from cls_data.annotations.reading import Record
from cls_data.errors import DataError
from cls_data.images.parallel import CHUNK_SIZE, map_chunks
from cls_data.images.store_file import StoreFile
from cls_data.images.strict_decoding import StrictDecoder, suppress_pillow_warnings
from cls_export.contract.errors import ImageError
from cls_export.contract.preprocessing import Preprocessing

_FORMAT_VERSION = 1  # increase it when the same images and settings would give other pixels
_FIX_ADVICE = (
    "Replace these files or remove their rows; `cls-data check ROOT --quarantine FILE` lists them."
)

_WritePixels = Callable[[int, NDArray[np.uint8]], None]
"""Takes a byte offset and consecutive rows."""


@dataclass(frozen=True, slots=True)
class PixelRows:
    """Stored pixels, uint8 [N, 3, H, W], and the file they are mapped from; None for memory.

    Loader workers, forked or spawned, share the memory of their parent.
    """

    pixels: Tensor
    file: StoreFile | None = None

    def gather(self, index: Tensor, *, pinned: bool = False) -> Tensor:
        """Return some rows: uint8 [B, 3, H, W] for int64 [B], on the device of the pixels.

        Pinned rows are gathered into page-locked memory, from which a CUDA device copies
        asynchronously; pinning after gathering took longer than a ResNet-18 step for 256 images of
        224 px. Ignored in a loader worker, whose loader pins the batch.
        """
        if self.pixels.is_cuda:
            return self.pixels.index_select(0, index.pin_memory().to(self.pixels.device))
        shape = (len(index), *self.pixels.shape[1:])
        if get_worker_info() is None:
            rows = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        else:
            # Workers send batches through shared memory. Gathering into it saves a copy and avoids
            # fragmentation (default_collate in torch.utils.data does the same).
            num_bytes = math.prod(shape)
            memory = torch.UntypedStorage._new_shared(num_bytes)  # type: ignore[no-untyped-call]
            rows = self.pixels.new_empty(0).set_(memory).view(shape)
        _copy_rows(self.pixels, index, rows)
        return rows

    def __reduce__(self) -> tuple[Any, ...]:
        # Map a file again; pickled as a tensor, its content would be copied into shared memory.
        if self.file is None:
            return PixelRows, (self.pixels, None)
        return _map_rows, (self.file,)


def _copy_rows(pixels: Tensor, index: Tensor, rows: Tensor) -> None:
    """Copy some rows, as words of 8 bytes where their size allows it.

    torch gives each thread whole rows if they have at most 32,768 elements. It splits longer ones
    between all threads, one row after the other. On 16 cores, 256 rows of 224 px took 2.8 ms as
    bytes and 0.6 ms as words.
    """
    row_bytes = math.prod(pixels.shape[1:])
    source = pixels.view(len(pixels), row_bytes)
    target = rows.view(len(rows), row_bytes)
    if row_bytes % 8 == 0:
        source = source.view(torch.int64)
        target = target.view(torch.int64)
    torch.index_select(source, 0, index, out=target)


class RowSource(Protocol):
    """Stored pixels of N rows, wherever they are."""

    @property
    def pixels(self) -> Tensor:
        """All rows: uint8 [N, 3, H, W]."""
        ...

    def gather(self, index: Tensor, *, pinned: bool = False) -> Tensor:
        """Return some rows: uint8 [B, 3, H, W] for int64 [B]."""
        ...


@dataclass(frozen=True, slots=True)
class ImageStore:
    """The decoded images of one split, and the size [N, 2] and SHA-256 digest of each file."""

    rows: RowSource
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
        """Decode and resize all images, or map a file that an earlier build of them wrote.

        Args:
            records: The images, in row order.
            preprocessing: Decodes and resizes one image.
            workers: Number of worker processes or threads; see `map_chunks`.
            folder: Folder for store files, each named by a hash of the image bytes, their order,
                and the preprocessing; None to keep the pixels in memory.
            strict: Reject damaged images that Pillow would repair.
            progress: Label of a progress bar; None for no bar.

        Raises:
            DataError: Images cannot be read or decoded (the message lists them by file and line),
                or the store file cannot be written.
        """
        builder = StoreBuilder(
            records=records,
            preprocessing=preprocessing,
            workers=workers,
            strict=strict,
            progress=progress,
        )
        if folder is None:
            return cls._build_in_memory(builder)
        return cls._build_file(builder, Path(folder))

    @classmethod
    def _build_in_memory(cls, builder: "StoreBuilder") -> Self:
        # Anonymous shared memory: forked processes can write to it, without /dev/shm's limit.
        num_bytes = math.prod(builder.shape)
        try:
            memory = mmap.mmap(-1, num_bytes)
        except (OSError, ValueError, OverflowError) as error:
            raise DataError(
                f"{num_bytes / 1e9:.2f} GB of decoded images do not fit into memory ({error}). "
                "Keep them in a file with data.store=PATH, or make them smaller with "
                "data.stored_size"
            ) from error
        flat = np.frombuffer(memory, np.uint8)

        def write_pixels(offset: int, pixels: NDArray[np.uint8]) -> None:
            end = offset + pixels.size
            flat[offset:end] = pixels.ravel()

        result = builder.decode_all(write_pixels)
        pixels = torch.frombuffer(memory, dtype=torch.uint8)
        rows = PixelRows(pixels.view(builder.shape))
        return cls(rows, result.sizes, result.digests)

    @classmethod
    def _build_file(cls, builder: "StoreBuilder", folder: Path) -> Self:
        digests = builder.hash_files()
        path = folder / f"{builder.key(digests)}.store"
        file = StoreFile(path, builder.shape)

        file.remove_stale_drafts()
        sizes = file.verify_and_load_sizes(CHUNK_SIZE)
        if sizes is None:
            try:
                sizes = write_store_file(builder, file, digests).sizes
            except OSError as error:
                raise DataError(
                    f"{folder}: {file.length / 1e9:.2f} GB of decoded images cannot be written "
                    f"({error.strerror}). Free some space, choose another folder with "
                    "data.store=PATH, or keep the images in memory with data.store=null"
                ) from error
        return cls(_map_rows(file), sizes, digests)

    @property
    def pixels(self) -> Tensor:
        """All rows: uint8 [N, 3, H, W]."""
        return self.rows.pixels


def write_store_file(
    builder: "StoreBuilder", file: StoreFile, digests: Sequence[bytes]
) -> "DecodeResult":
    """Decode images into a store file.

    Raises:
        DataError: Images cannot be decoded, or their files no longer have these digests.
        OSError: The file cannot be written.
    """
    with file.open_draft() as draft:
        result = builder.decode_all(draft.write_at)
        if result.digests != digests:
            raise DataError(
                "Image files changed while they were read; start again when they are complete"
            )
        draft.finish(result.sizes, result.checksums)
    return result


def _map_rows(file: StoreFile) -> PixelRows:
    return PixelRows(file.map(), file)


class _ChunkResult(NamedTuple):
    """Result of decoding consecutive rows."""

    sizes: NDArray[np.int64]
    digests: list[bytes]
    checksum: int
    findings: list[str]


class DecodeResult(NamedTuple):
    """Result of decoding all rows."""

    sizes: NDArray[np.int64]
    digests: list[bytes]
    checksums: list[int]


@dataclass(frozen=True)
class StoreBuilder:
    """Decode the images of one split into any destination."""

    records: Sequence[Record]
    preprocessing: Preprocessing
    workers: int
    strict: bool
    progress: str | None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all rows: (N, 3, H, W)."""
        height, width = self.preprocessing.size
        return len(self.records), 3, height, width

    def key(self, digests: Sequence[bytes]) -> str:
        """Hash everything that determines the pixels."""
        settings = (
            _FORMAT_VERSION,
            self.preprocessing.pixels_id,
            self.preprocessing.size,
            self.strict,
            len(digests),
        )
        content = repr(settings).encode() + b"".join(digests)
        return hashlib.sha256(content).hexdigest()[:32]

    def hash_files(self) -> list[bytes]:
        """Return the SHA-256 digest of each image file, without decoding."""

        def work(start: int, stop: int) -> list[bytes]:
            records = self.records[start:stop]
            return [self._hash_file(record.path) for record in records]

        digests: list[bytes] = []
        chunks = map_chunks(work, len(self.records), workers=self.workers)
        with contextlib.closing(chunks):
            for chunk in chunks:
                digests += chunk
        return digests

    def _hash_file(self, path: Path) -> bytes:
        try:
            data = self.preprocessing.read_file(path)
        except ImageError:  # decoding reports it together with other findings
            data = b""
        return hashlib.sha256(data).digest()

    def decode_all(self, write_pixels: _WritePixels) -> DecodeResult:
        """Decode and resize all images, and write each chunk of rows at its byte offset."""
        decode: Callable[[bytes], Image.Image] = self.preprocessing.decode
        if self.strict:
            decode = StrictDecoder(self.preprocessing)
        row_shape = self.shape[1:]
        row_bytes = math.prod(row_shape)

        def work(start: int, stop: int) -> _ChunkResult:
            records = self.records[start:stop]
            pixels = np.zeros((len(records), *row_shape), np.uint8)
            sizes = np.zeros((len(records), 2), np.int64)
            digests = []
            findings = []

            for row, record in enumerate(records):
                data = b""
                try:
                    data = self.preprocessing.read_file(record.path)
                    image = decode(data)
                    resized = self.preprocessing.resize_image(image)
                    pixels[row] = resized.transpose(2, 0, 1)
                    sizes[row] = image.size
                except (OSError, ValueError) as error:
                    findings.append(f"{record.location}: {error}")
                digests.append(hashlib.sha256(data).digest())

            write_pixels(start * row_bytes, pixels)
            checksum = zlib.crc32(pixels.data)
            return _ChunkResult(sizes, digests, checksum, findings)

        sizes = []
        digests: list[bytes] = []
        checksums = []
        findings: list[str] = []

        chunks = map_chunks(work, len(self.records), workers=self.workers, progress=self.progress)
        with suppress_pillow_warnings(), contextlib.closing(chunks):
            for chunk in chunks:
                sizes.append(chunk.sizes)
                digests += chunk.digests
                checksums.append(chunk.checksum)
                findings += chunk.findings

        if findings:
            raise DataError.from_findings(
                f"{len(findings)} image(s) cannot be decoded", findings, _FIX_ADVICE
            )

        return DecodeResult(
            sizes=np.concatenate(sizes),
            digests=digests,
            checksums=checksums,
        )
