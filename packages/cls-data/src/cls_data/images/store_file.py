"""Store file: pixels, followed by a description that proves the file complete.

Layout: pixels (uint8, C order, [N, 3, H, W]), a JSON description, the SHA-256 of the description,
its length (8 bytes, little endian), and 8 bytes of magic.
"""

import contextlib
import hashlib
import json
import math
import os
import socket
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

_MAGIC = b"clsstor1"
_DIGEST_LENGTH = 32
_TRAILER_LENGTH = _DIGEST_LENGTH + 8 + len(_MAGIC)


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

    def verify_and_load_sizes(self, chunk_size: int) -> NDArray[np.int64] | None:
        """Verify the file and return the image sizes, int64 [N, 2]; None if missing or damaged.

        There is one checksum per `chunk_size` rows.
        """
        if not self.path.exists():
            return None

        try:
            with self.path.open("rb") as stream:
                description = _read_description(stream, self.length)
                if tuple(description["shape"]) != self.shape:
                    raise ValueError(
                        f"its shape is {description['shape']}, expected {list(self.shape)}"
                    )
                self._verify_pixels(stream, description["checksums"], chunk_size)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning(
                "{}: stored pixels are damaged ({}); decoding the images again", self.path, error
            )
            return None

        sizes = np.array(description["sizes"], np.int64)
        return sizes.reshape(-1, 2)

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
        """Map the pixels: uint8 [N, 3, H, W]. Processes share pages; writes stay private."""
        flat = torch.from_file(
            str(self.path),
            shared=False,
            size=self.length,
            dtype=torch.uint8,
        )
        return flat.view(self.shape)

    @contextlib.contextmanager
    def open_draft(self) -> Iterator["StoreDraft"]:
        """Yield a draft that becomes the file when it is finished, and is deleted otherwise."""
        # Not contract.files.open_atomically: several processes write a draft by its path, and the
        # draft of a killed build can be as large as the dataset. So its name has the host and the
        # process, and the next build deletes it. Two runs can build the same file at once.
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned_drafts(folder)

        name = f".{self.path.name}.{socket.gethostname()}.{os.getpid()}"
        draft = StoreDraft(self, folder / name)

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


def _read_description(stream: BinaryIO, pixels_length: int) -> dict[str, Any]:
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - _TRAILER_LENGTH))
    trailer = stream.read()
    digest = trailer[:_DIGEST_LENGTH]
    length_bytes = trailer[_DIGEST_LENGTH : _DIGEST_LENGTH + 8]
    length = int.from_bytes(length_bytes, "little")

    expected_end = pixels_length + length + _TRAILER_LENGTH
    if not trailer.endswith(_MAGIC) or end != expected_end:
        raise ValueError(f"it is cut short or not a store file; {end} bytes")

    stream.seek(pixels_length)
    text = stream.read(length)
    if hashlib.sha256(text).digest() != digest:
        raise ValueError("wrong checksum of its description")

    description: dict[str, Any] = json.loads(text)
    return description


def _remove_abandoned_drafts(folder: Path) -> None:
    """Delete drafts of processes of this machine that no longer run."""
    marker = f".store.{socket.gethostname()}."
    for draft in folder.glob(".*.store.*"):
        _, _, process = draft.name.partition(marker)
        if not process.isdecimal():
            continue
        if not _is_running(int(process)):
            draft.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user
        return True
    return True
