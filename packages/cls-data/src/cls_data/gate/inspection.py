"""Inspection of image files: what the gate's rules need, from one decode of each file."""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cls_data.images.parallel import map_chunks
from cls_data.images.strict_decoding import StrictDecoder, suppress_pillow_warnings
from cls_export.contract.errors import ImageError, ImageTooLargeError
from cls_export.contract.image_formats import image_format
from cls_export.contract.preprocessing import Preprocessing

THUMBNAIL_SIDE = 12
"""Pixels per side of the gray thumbnail that confirms a match of two difference hashes."""

_RESAMPLING = Image.Resampling.BOX
_MAX_CROP = 512  # px; luma and sharpness of large photos are measured on a center crop, for speed


class FileProblem(NamedTuple):
    """Why a file cannot be decoded; the kind is `huge`, `damaged`, or `unreadable`."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class InspectionResult:
    """Facts about N image files, in the order given; zeros for a file that cannot be decoded.

    Attributes:
        problems: Why a file cannot be decoded, by its index.
        formats: Format names according to the first bytes; None for an unknown one.
        file_digests: SHA-256 of the file's bytes; of no bytes if the file cannot be read.
        pixel_digests: 16 bytes each, equal exactly if the decoded RGB images are equal.
        sizes: Width and height in pixels, int64 [N, 2].
        luma: Mean luma, 0 to 255, float32 [N].
        sharpness: Variance of the Laplacian of the luma (Pech-Pacheco et al., 2000), in squared
            levels, float32 [N].
        hashes: Difference hashes, uint64 [N]: bit i tells whether pixel i of a 9x8 thumbnail is
            brighter than its right neighbor.
        thumbnails: Luma of 12x12 thumbnails, uint8 [N, 144].
    """

    problems: dict[int, FileProblem]
    formats: list[str | None]
    file_digests: list[bytes]
    pixel_digests: list[bytes]
    sizes: NDArray[np.int64]
    luma: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.formats)


def inspect_files(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    *,
    workers: int,
    progress: str | None = None,
) -> InspectionResult:
    """Read and decode each image file once, in parallel processes.

    The progress bar has the label `progress`; None shows no bar.
    """
    decoder = StrictDecoder(preprocessing)
    names = [str(path) for path in paths]

    def inspect(start: int, stop: int) -> InspectionResult:
        return _inspect_chunk(names[start:stop], preprocessing, decoder)

    result = empty_result(len(names))
    start = 0

    chunks = map_chunks(inspect, len(names), workers=workers, progress=progress)
    with suppress_pillow_warnings(), contextlib.closing(chunks):
        for chunk in chunks:
            stop = start + len(chunk)
            for index, problem in chunk.problems.items():
                result.problems[start + index] = problem
            result.formats[start:stop] = chunk.formats
            result.file_digests[start:stop] = chunk.file_digests
            result.pixel_digests[start:stop] = chunk.pixel_digests
            result.sizes[start:stop] = chunk.sizes
            result.luma[start:stop] = chunk.luma
            result.sharpness[start:stop] = chunk.sharpness
            result.hashes[start:stop] = chunk.hashes
            result.thumbnails[start:stop] = chunk.thumbnails
            start = stop

    return result


def empty_result(length: int) -> InspectionResult:
    """Return a result of zeros."""
    empty_digest = hashlib.sha256().digest()
    return InspectionResult(
        problems={},
        formats=[None] * length,
        file_digests=[empty_digest] * length,
        pixel_digests=[b""] * length,
        sizes=np.zeros((length, 2), np.int64),
        luma=np.zeros(length, np.float32),
        sharpness=np.zeros(length, np.float32),
        hashes=np.zeros(length, np.uint64),
        thumbnails=np.zeros((length, THUMBNAIL_SIDE**2), np.uint8),
    )


def _inspect_chunk(
    names: Sequence[str], preprocessing: Preprocessing, decoder: StrictDecoder
) -> InspectionResult:
    result = empty_result(len(names))
    for index, name in enumerate(names):
        try:
            data = preprocessing.read_file(name)
        except ImageError as error:
            reason = str(error).removeprefix(f"{name}: ")
            result.problems[index] = FileProblem("unreadable", reason)
            continue

        result.formats[index] = image_format(data)
        result.file_digests[index] = hashlib.sha256(data).digest()

        try:
            _measure(result, index, decoder(data))
        except ImageTooLargeError as error:
            result.problems[index] = FileProblem("huge", str(error))
        except ValueError as error:
            result.problems[index] = FileProblem("damaged", f"cannot be decoded ({error})")

    return result


def _measure(result: InspectionResult, index: int, image: Image.Image) -> None:
    result.sizes[index] = image.size
    pixel_digest = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    pixel_digest.update(image.tobytes())
    result.pixel_digests[index] = pixel_digest.digest()
    gray = image.convert("L")
    thumbnail = _shrink(gray, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    result.thumbnails[index] = thumbnail.ravel()
    small = _shrink(gray, 9, 8)
    packed = np.packbits(small[:, :-1] > small[:, 1:])
    result.hashes[index] = packed.view(np.uint64)[0]

    levels = np.asarray(_center_crop(gray), np.float32)
    result.luma[index] = levels.mean()
    result.sharpness[index] = _laplacian_variance(levels)


def _center_crop(gray: Image.Image) -> Image.Image:
    if max(gray.size) <= _MAX_CROP:
        return gray
    width, height = gray.size
    left = max(0, (width - _MAX_CROP) // 2)
    top = max(0, (height - _MAX_CROP) // 2)
    right = min(width, left + _MAX_CROP)
    bottom = min(height, top + _MAX_CROP)
    return gray.crop((left, top, right, bottom))


def _shrink(gray: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    """Return the luma of a thumbnail, uint8 [height, width]."""
    thumbnail = gray.resize((width, height), _RESAMPLING)
    return np.asarray(thumbnail, np.uint8)


def _laplacian_variance(levels: NDArray[np.float32]) -> float:
    if min(levels.shape) < 3:
        return 0.0
    left = levels[1:-1, :-2]
    right = levels[1:-1, 2:]
    above = levels[:-2, 1:-1]
    below = levels[2:, 1:-1]
    center = levels[1:-1, 1:-1]

    laplacian = left + right + above + below - 4 * center
    return float(laplacian.var())
