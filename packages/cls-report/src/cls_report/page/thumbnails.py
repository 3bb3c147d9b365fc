"""Images that a report holds within itself, small enough that all of it stays small."""

import base64
import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

BUDGET = 3_000_000
"""Bytes of image files in a report, so that it stays under 5 MB with all else."""

_LONGEST_SIDE = 112
_QUALITY = 82


class Pictures:
    """Collects images while there is room.

    Args:
        root: that their ids are relative to.
        budget: bytes of all of them.
    """

    def __init__(self, root: str | os.PathLike[str], budget: int = BUDGET) -> None:
        self.addresses: list[str] = []
        """`data:` addresses, in the order in which the images came."""
        self._root = Path(root)
        self._left = budget
        self._places: dict[str, int] = {}

    def place(self, image_id: str) -> int:
        """Return the place of an image's picture; -1 where there is no room left for it, or no readable file."""
        if image_id not in self._places:
            self._places[image_id] = (
                self._kept(_thumbnail(self._root / image_id)) if self._left > 0 else -1
            )
        return self._places[image_id]

    def heat_map(self, image_id: str, heat: NDArray[np.uint8]) -> int | None:
        """Return the place of an image under a heat map uint8 [h, w]; None where there is no room or file."""
        image = _opened(self._root / image_id)
        if image is None:
            return None
        gray = ImageOps.grayscale(image).convert("RGB")
        strength = Image.fromarray(heat).resize(image.size, Image.Resampling.BICUBIC)
        warm = ImageOps.colorize(strength, "#30206a", "#ffe14d", mid="#e0523a")
        place = self._kept(_encoded(Image.blend(gray, warm, 0.5)))
        return None if place < 0 else place

    def _kept(self, file: tuple[bytes, str] | None) -> int:
        if file is None:
            return -1
        content, kind = file
        if len(content) > self._left:
            self._left = 0  # the rest need not be read to be turned away
            return -1
        self._left -= len(content)
        self.addresses.append(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")
        return len(self.addresses) - 1


def _thumbnail(path: Path) -> tuple[bytes, str] | None:
    image = _opened(path)
    return None if image is None else _encoded(image)


def _opened(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except OSError:
        return None
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return image


def _encoded(image: Image.Image) -> tuple[bytes, str]:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue(), "jpeg"
