"""Thumbnails embedded in a page, within a size budget."""

import base64
import io
import os
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cls_export.contract.errors import ImageError
from cls_export.contract.preprocessing import Preprocessing

BUDGET = 3_000_000  # bytes; with everything else, a page stays under 5 MB
_MAX_SIDE = 112
_QUALITY = 82
_COLD, _MEDIUM, _HOT = "#30206a", "#e0523a", "#ffe14d"


class Thumbnails:
    """Thumbnails as `data:` URLs, in the order in which they were added.

    Images are decoded by the model's preprocessing, so a thumbnail looks like the model's input.
    Their names are relative to `root`, and their total size is at most `budget` bytes.
    """

    def __init__(
        self, root: str | os.PathLike[str], preprocessing: Preprocessing, budget: int = BUDGET
    ) -> None:
        self.urls: list[str] = []
        self._root = Path(root)
        self._preprocessing = preprocessing
        self._remaining = budget
        self._indices: dict[str, int] = {}

    def add(self, name: str) -> int:
        """Return the index of a thumbnail; -1 if it is unreadable or exceeds the budget."""
        if name in self._indices:
            return self._indices[name]

        index = -1
        if self._remaining > 0:
            image = self._open(name)
            if image is not None:
                index = self._store(image)
        self._indices[name] = index
        return index

    def add_heat_map(self, name: str, heat: NDArray[np.uint8]) -> int | None:
        """Return the index of an image with a heat map uint8 [h, w] over it; None if left out."""
        image = self._open(name)
        if image is None:
            return None

        gray = ImageOps.grayscale(image).convert("RGB")
        heat_image = Image.fromarray(heat)
        strength = heat_image.resize(image.size, Image.Resampling.BICUBIC)
        colors = ImageOps.colorize(strength, _COLD, _HOT, mid=_MEDIUM)
        blended = Image.blend(gray, colors, 0.5)
        index = self._store(blended)
        if index < 0:
            return None
        return index

    def _open(self, name: str) -> Image.Image | None:
        path = PurePath(name)
        if path.is_absolute() or ".." in path.parts:  # predictions from somebody else
            return None
        try:
            image = self._preprocessing.decode(self._root / name)
        except (ImageError, OSError, ValueError):  # a name that no file can have is a ValueError
            return None
        image.thumbnail((_MAX_SIDE, _MAX_SIDE))
        return image

    def _store(self, image: Image.Image) -> int:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=_QUALITY)
        content = stream.getvalue()
        if len(content) > self._remaining:
            self._remaining = 0  # stop, so that the remaining files are not even read
            return -1

        self._remaining -= len(content)
        encoded = base64.b64encode(content).decode()
        index = len(self.urls)
        self.urls.append(f"data:image/jpeg;base64,{encoded}")
        return index
