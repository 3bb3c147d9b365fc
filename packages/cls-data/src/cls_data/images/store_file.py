"""Store file: pixels, followed by a description that proves the file complete.

Layout: pixels (uint8, C order, [N, 3, H, W]), a JSON description, the SHA-256 of the description,
its length (8 bytes, little endian), and 8 bytes of magic.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor

from cls_data.errors import DataError
from cls_export.contract.files import draft_path, remove_drafts

_MAGIC = b"clsstor1"
_DIGEST_LENGTH = 32
_TRAILER_LENGTH = _DIGEST_LENGTH + 8 + len(_MAGIC)

_MAX_HEADER_BYTES = 10_000
_MAX_ROW_BYTES = 100
"""Limit of a description, so that a damaged length takes no memory."""


@dataclass(frozen=True, slots=True)
class StoreFile:
    """A file of stored pixels, which may not exist yet.

    Its name is a hash of the image files and the settings that determine the pixels.
    """

    path: Path
    shape: tuple[int, int, int, int]

    @property
    def length(self) -> int:
        """Bytes of the pixels."""
        return math.prod(self.shape)

    def read_description(
        self, stream: BinaryIO, chunk_size: int
    ) -> tuple[NDArray[np.int64], Sequence[int]]:
        """Return the image sizes, int64 [N, 2], and the checksums that an open file states.

        Raises:
            ValueError: The description is damaged, or describes other images.
        """
        try:
            description = _read_description(stream, self.shape)
            sizes = _parse_sizes(description, self.shape[0])
            checksums = _parse_checksums(description, self.shape[0], chunk_size)
        except (KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from error
        return sizes, checksums

    def verify_and_load_sizes(self, chunk_size: int) -> NDArray[np.int64] | None:
        """Verify the file and return the image sizes, int64 [N, 2]; None if missing or damaged.

        There is one checksum per `chunk_size` rows.
        """
        if not os.path.lexists(self.path):
            return None

        try:
            with _open_regular_file(self.path) as stream:
                sizes, checksums = self.read_description(stream, chunk_size)
                self._verify_pixels(stream, checksums, chunk_size)
        except (OSError, ValueError) as error:
            logger.warning(
                "{}: stored pixels are damaged ({}); decoding the images again", self.path, error
            )
            return None
        return sizes

    def _verify_pixels(self, stream: BinaryIO, checksums: Sequence[int], chunk_size: int) -> None:
        row_bytes = self.length // self.shape[0]
        stream.seek(0)
        for number, checksum in enumerate(checksums):
            start = number * chunk_size
            num_rows = min(chunk_size, self.shape[0] - start)
            pixels = stream.read(num_rows * row_bytes)
            if zlib.crc32(pixels) != checksum:
                last = start + num_rows - 1
                raise ValueError(f"wrong checksum of rows {start} to {last}")

    def map(self) -> Tensor:
        """Map the pixels: uint8 [N, 3, H, W]. Processes share pages; writes stay private.

        Raises:
            DataError: The file cannot be mapped, for example because it was deleted meanwhile.
        """
        try:
            flat = torch.from_file(
                str(self.path),
                shared=False,
                size=self.length,
                dtype=torch.uint8,
            )
        except RuntimeError as error:
            raise DataError(
                f"{self.path}: stored pixels cannot be mapped into memory ({error}). Start again, "
                "or keep the images in memory with data.store=null"
            ) from error
        return flat.view(self.shape)

    def remove_stale_drafts(self) -> None:
        """Delete the drafts of dead processes of this machine, where that is allowed."""
        with contextlib.suppress(OSError):  # a folder to read from may be read-only
            remove_drafts(self.path.parent)

    @contextlib.contextmanager
    def open_draft(self) -> Iterator["StoreDraft"]:
        """Yield a draft that becomes the file when it is finished, and is deleted otherwise."""
        # Not contract.files.open_atomically: several processes write a draft by its path. The
        # draft of a killed build can be as large as the dataset, so the next build deletes it.
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < self.length:  # before minutes of decoding
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

        draft = StoreDraft(self, draft_path(self.path))
        try:
            with draft.path.open("wb") as stream:
                stream.truncate(self.length)
            yield draft
        finally:
            draft.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class StoreDraft:
    """A store file that is being written."""

    file: StoreFile
    path: Path

    def write_at(self, offset: int, pixels: NDArray[np.uint8]) -> None:
        """Write rows at a byte offset. Several processes may write different rows.

        Uses a buffered write. On a full disk a memory map kills the process, and an unbuffered
        write may stop halfway (as it does after 2 GB) and only report it in its return value.
        """
        with self.path.open("r+b") as stream:
            stream.seek(offset)
            stream.write(pixels.data)

    def finish(self, sizes: NDArray[np.int64], checksums: Sequence[int]) -> None:
        """Append the description, flush to disk, and rename the draft to the store file."""
        content = {
            "shape": list(self.file.shape),
            "checksums": list(checksums),
            "sizes": sizes.tolist(),
        }
        text = json.dumps(content)
        description = text.encode()

        with self.path.open("r+b") as stream:
            stream.seek(self.file.length)
            stream.write(description)
            stream.write(hashlib.sha256(description).digest())
            stream.write(len(description).to_bytes(8, "little"))
            stream.write(_MAGIC)
            stream.flush()
            os.fsync(stream.fileno())

        os.replace(self.path, self.file.path)


def _open_regular_file(path: Path) -> BinaryIO:
    # O_NONBLOCK: otherwise opening a pipe waits for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    stream = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise ValueError("not a regular file")
    return stream


def _read_description(stream: BinaryIO, shape: tuple[int, int, int, int]) -> dict[str, Any]:
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - _TRAILER_LENGTH))
    trailer = stream.read()
    digest = trailer[:_DIGEST_LENGTH]
    length_bytes = trailer[_DIGEST_LENGTH : _DIGEST_LENGTH + 8]
    length = int.from_bytes(length_bytes, "little")

    pixels_length = math.prod(shape)
    expected_end = pixels_length + length + _TRAILER_LENGTH
    if not trailer.endswith(_MAGIC) or end != expected_end:
        raise ValueError(f"it is cut short or not a store file of this version; {end} bytes")
    if length > _MAX_HEADER_BYTES + shape[0] * _MAX_ROW_BYTES:
        raise ValueError(f"its description has {length} bytes")

    stream.seek(pixels_length)
    text = stream.read(length)
    if hashlib.sha256(text).digest() != digest:
        raise ValueError("wrong checksum of its description")

    description: dict[str, Any] = json.loads(text)
    if tuple(description["shape"]) != shape:
        raise ValueError(f"its shape is {description['shape']}, expected {list(shape)}")
    return description


def _parse_sizes(description: dict[str, Any], num_rows: int) -> NDArray[np.int64]:
    sizes = np.array(description["sizes"], np.int64).reshape(-1, 2)
    if len(sizes) != num_rows:
        raise ValueError(f"it has {len(sizes)} image sizes, expected {num_rows}")
    return sizes


def _parse_checksums(description: dict[str, Any], num_rows: int, chunk_size: int) -> Sequence[int]:
    checksums: Sequence[int] = description["checksums"]
    expected = math.ceil(num_rows / chunk_size)
    if len(checksums) != expected:
        raise ValueError(f"it has {len(checksums)} checksums, expected {expected}")
    return checksums
