"""What the gate wants to know of every image file, found in one decode and kept in a few hundred bytes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cls_data.images.decoding import HugeImageError, StrictDecoder, quiet_decoding
from cls_data.images.parallel import map_chunks
from cls_export.contract.image_formats import image_format
from cls_export.contract.preprocessing import Preprocessing

THUMBNAIL = 12
"""Side in pixels of the gray picture that settles whether two images with like hashes are alike."""

_RESAMPLING = Image.Resampling.BOX
_LARGEST = 512  # px; sharpness is measured on at most this much of a side, or large photos would cost seconds


@dataclass(frozen=True, slots=True)
class Inspection:
    """Facts about N image files, in the order asked for. Those of a file that cannot be decoded are zeros.

    Attributes:
        problems: by position, why a file cannot be decoded, and whether it is `huge`, `damaged` or `unreadable`.
        formats: names of formats, as the first bytes tell; None for an unknown one.
        file_digests: SHA-256 of the bytes; of no bytes where the file cannot be read.
        pixel_digests: 16 bytes each, equal exactly when the decoded RGB images are.
        sizes: int64 [N, 2], width and height in pixels.
        luma: float32 [N], mean of 0-255.
        sharpness: float32 [N], variance of the Laplacian of the luma (Pech-Pacheco et al., 2000), in levels squared.
        hashes: uint64 [N], difference hash: bit i says whether place i of a 9x8 picture is brighter than the next.
        thumbnails: uint8 [N, 144], luma of a 12x12 picture.
    """

    problems: dict[int, tuple[str, str]]
    formats: list[str | None]
    file_digests: list[bytes]
    pixel_digests: list[bytes]
    sizes: NDArray[np.int64]
    luma: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]

    @classmethod
    def of(
        cls,
        paths: Sequence[Path],
        preprocessing: Preprocessing,
        *,
        workers: int,
        progress: str | None = None,
    ) -> Self:
        """Read and decode some files, on several cores."""
        decoder = StrictDecoder(preprocessing)
        names = [str(path) for path in paths]

        def inspect(start: int, stop: int) -> Inspection:
            return _inspect(names[start:stop], decoder)

        with quiet_decoding():
            parts = list(map_chunks(inspect, len(names), workers=workers, progress=progress))
        return cls._joined(parts or [_inspect([], decoder)])

    @classmethod
    def _joined(cls, parts: Sequence["Inspection"]) -> Self:
        starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
        problems = {
            start + row: problem
            for start, part in zip(starts, parts, strict=False)
            for row, problem in part.problems.items()
        }
        return cls(
            problems,
            [name for part in parts for name in part.formats],
            [digest for part in parts for digest in part.file_digests],
            [digest for part in parts for digest in part.pixel_digests],
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("sizes", "luma", "sharpness", "hashes", "thumbnails")
            ),
        )

    def __len__(self) -> int:
        return len(self.formats)


def _inspect(names: Sequence[str], decoder: StrictDecoder) -> Inspection:
    count = len(names)
    found = Inspection(
        problems={},
        formats=[None] * count,
        file_digests=[hashlib.sha256().digest()] * count,
        pixel_digests=[b""] * count,
        sizes=np.zeros((count, 2), np.int64),
        luma=np.zeros(count, np.float32),
        sharpness=np.zeros(count, np.float32),
        hashes=np.zeros(count, np.uint64),
        thumbnails=np.zeros((count, THUMBNAIL**2), np.uint8),
    )
    for row, name in enumerate(names):
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            found.problems[row] = ("unreadable", f"cannot be read ({error.strerror})")
            continue
        found.formats[row] = image_format(data)
        found.file_digests[row] = hashlib.sha256(data).digest()
        try:
            _measure(found, row, decoder(data))
        except HugeImageError as error:
            found.problems[row] = ("huge", str(error))
        except ValueError as error:
            found.problems[row] = ("damaged", f"{len(data)} bytes: {error}")
    return found


def _measure(found: Inspection, row: int, image: Image.Image) -> None:
    found.sizes[row] = image.size
    found.pixel_digests[row] = hashlib.blake2b(
        repr(image.size).encode() + image.tobytes(), digest_size=16
    ).digest()
    gray = image.convert("L")
    found.thumbnails[row] = np.frombuffer(
        gray.resize((THUMBNAIL, THUMBNAIL), _RESAMPLING).tobytes(), np.uint8
    )
    found.hashes[row] = _difference_hash(gray)
    if max(gray.size) > _LARGEST:
        width, height = gray.size
        left, top = max(0, (width - _LARGEST) // 2), max(0, (height - _LARGEST) // 2)
        gray = gray.crop((left, top, min(width, left + _LARGEST), min(height, top + _LARGEST)))
    levels = np.asarray(gray, np.float32)
    found.luma[row] = levels.mean()
    found.sharpness[row] = _laplacian_variance(levels)


def _difference_hash(gray: Image.Image) -> np.uint64:
    small = np.frombuffer(gray.resize((9, 8), _RESAMPLING).tobytes(), np.uint8).reshape(8, 9)
    return np.uint64(np.packbits(small[:, :-1] > small[:, 1:]).view(np.uint64)[0])


def _laplacian_variance(levels: NDArray[np.float32]) -> float:
    if min(levels.shape) < 3:
        return 0.0
    center = levels[1:-1, 1:-1]
    second = (
        levels[1:-1, :-2] + levels[1:-1, 2:] + levels[:-2, 1:-1] + levels[2:, 1:-1] - 4 * center
    )
    return float(second.var())
