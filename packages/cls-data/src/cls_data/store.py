"""Decode once: every image of a split as rows of one contiguous uint8 array."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from cls_data.annotations import Record
from cls_data.errors import DataError
from cls_data.preprocessing import ImagePreprocessing


@dataclass(frozen=True, slots=True)
class ImageStore:
    """The decoded and resized images of one split. Forked loader workers share its memory.

    Attributes:
        pixels: uint8 [N, 3, H, W].
        sizes: int64 array [N, 2], width and height of each image before resizing, in pixels.
        digests: SHA-256 of each image file's bytes.
    """

    pixels: Tensor
    sizes: NDArray[np.int64]
    digests: tuple[bytes, ...]

    @classmethod
    def build(
        cls, records: Sequence[Record], preprocessing: ImagePreprocessing, *, threads: int, progress: str | None = None
    ) -> Self:
        """Decode and resize all images, several at a time (Pillow works outside the interpreter's lock).

        Args:
            records: the images, in row order.
            preprocessing: gives the pixels of one image.
            threads: images decoded at once.
            progress: text beside a progress bar; None for no bar.

        Raises:
            DataError: images that cannot be read or decoded; all of them are named by file and line.
        """
        pixels = torch.empty(len(records), 3, *preprocessing.size, dtype=torch.uint8)
        sizes = np.empty((len(records), 2), dtype=np.int64)
        rows = pixels.numpy()

        def fill(row: int) -> bytes | str:
            record = records[row]
            try:
                data = record.path.read_bytes()
                image = preprocessing.decode(data)
                rows[row] = preprocessing.fit(image).transpose(2, 0, 1)
                sizes[row] = image.size
            except (OSError, ValueError) as error:
                return f"{record.source}: {record.id}: {error}"
            return hashlib.sha256(data).digest()

        with ThreadPoolExecutor(threads) as pool:
            outcomes = list(
                track(pool.map(fill, range(len(records))), progress or "", total=len(records), disable=progress is None)
            )
        if findings := [outcome for outcome in outcomes if isinstance(outcome, str)]:
            raise DataError.from_findings(
                f"{len(findings)} image(s) cannot be decoded",
                findings,
                "Replace the files, or remove their rows.",
            )
        return cls(pixels, sizes, tuple(outcome for outcome in outcomes if isinstance(outcome, bytes)))

    def __len__(self) -> int:
        return len(self.pixels)

    def gather(self, index: Tensor) -> Tensor:
        """Return some rows: int64 [B] to uint8 [B, 3, H, W]."""
        return self.pixels.index_select(0, index)
