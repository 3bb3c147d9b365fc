"""The file of a mapped store: pixels, then a description of them that says whether they are whole.

Layout: pixels (uint8, C order, [N, 3, H, W]), a JSON description, the SHA-256 of the description, its length (8 bytes,
little endian), 8 bytes of magic. A file is complete exactly when it ends in this way; drafts have another name, and
take their own with one rename, so that two runs may build the same file at the same time.
"""

import contextlib
import hashlib
import json
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
_TRAILER = 32 + 8 + len(_MAGIC)


@dataclass(frozen=True, slots=True)
class StoreFile:
    """A place for stored pixels, named by a key of all that decides what they are.

    Attributes:
        path: of the file, whether it is there or not.
        shape: N, 3, H, W.
    """

    path: Path
    shape: tuple[int, int, int, int]

    @property
    def length(self) -> int:
        """Bytes of the pixels."""
        return int(np.prod(self.shape, dtype=np.int64))

    def load_sizes(self, chunk: int) -> NDArray[np.int64] | None:
        """Read the whole file and return the image sizes, int64 [N, 2]; None where it is missing or damaged.

        Args:
            chunk: rows under one checksum.
        """
        if not self.path.exists():
            return None
        row = self.length // self.shape[0]
        try:
            with self.path.open("rb") as stream:
                description = _description(stream, self.length)
                if tuple(description["shape"]) != self.shape:
                    raise ValueError(f"it holds {description['shape']}, not {list(self.shape)}")
                stream.seek(0)
                for number, checksum in enumerate(description["checksums"]):
                    rows = min(chunk, self.shape[0] - number * chunk)
                    if zlib.crc32(stream.read(rows * row)) != checksum:
                        raise ValueError(f"the checksum of rows {number * chunk} and on is wrong")
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning(
                "{}: the stored pixels are damaged ({}), and are decoded again", self.path, error
            )
            return None
        return np.array(description["sizes"], np.int64).reshape(-1, 2)

    def map(self) -> Tensor:
        """Map the pixels: uint8 [N, 3, H, W]. All processes share what they read; what one writes, no other sees."""
        return torch.from_file(
            str(self.path), shared=False, size=self.length, dtype=torch.uint8
        ).view(self.shape)

    @contextlib.contextmanager
    def draft(self) -> Iterator["Draft"]:
        """Yield a draft, which becomes the file when it is finished and vanishes when it is not.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(self.path.parent)
        draft = Draft(
            self, self.path.with_name(f".{self.path.name}.{socket.gethostname()}.{os.getpid()}")
        )
        try:
            with draft.path.open("wb") as stream:
                stream.truncate(self.length)
            yield draft
        finally:
            draft.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Draft:
    """A store file under way."""

    file: StoreFile
    path: Path

    def write_at(self, offset: int, pixels: NDArray[np.uint8]) -> None:
        """Write some rows at a byte offset; several processes may, each its own rows.

        Written, not mapped: a mapping turns a full disk into a killed process. Buffered, since a bare write may stop
        halfway (on a disk that is just getting full, or after 2 GB) and only say so in its return value.
        """
        with self.path.open("r+b") as stream:
            stream.seek(offset)
            stream.write(pixels.data)

    def finish(self, sizes: NDArray[np.int64], checksums: Sequence[int]) -> None:
        """Describe the pixels, flush everything to the disk, and take the file's name."""
        content = {
            "shape": list(self.file.shape),
            "checksums": list(checksums),
            "sizes": sizes.tolist(),
        }
        description = json.dumps(content).encode()
        with self.path.open("r+b") as stream:
            stream.seek(self.file.length)
            stream.write(description + hashlib.sha256(description).digest())
            stream.write(len(description).to_bytes(8, "little") + _MAGIC)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(self.path, self.file.path)


def _description(stream: BinaryIO, length: int) -> dict[str, Any]:
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - _TRAILER))
    trailer = stream.read()
    size = int.from_bytes(trailer[32:40], "little")
    if not trailer.endswith(_MAGIC) or end != length + size + _TRAILER:
        raise ValueError(f"it was cut short, or is something else; {end} bytes")
    stream.seek(length)
    text = stream.read(size)
    if hashlib.sha256(text).digest() != trailer[:32]:
        raise ValueError("the checksum of its description is wrong")
    description: dict[str, Any] = json.loads(text)
    return description


def _remove_abandoned(folder: Path) -> None:
    """Remove drafts of processes of this machine that are no more; they can be as large as the whole set."""
    ours = f".store.{socket.gethostname()}."
    for draft in folder.glob(".*.store.*"):
        _, _, process = draft.name.partition(ours)
        if process.isdecimal() and not _alive(int(process)):
            draft.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
