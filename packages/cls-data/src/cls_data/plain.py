"""The preprocessing of the command line, where there is no model whose own could be asked."""

import io
from dataclasses import dataclass

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps


@dataclass(frozen=True, slots=True)
class PlainPreprocessing:
    """Decode upright to RGB, squash to a size, scale to 0-1.

    Attributes:
        size: height and width in pixels.
    """

    size: tuple[int, int] = (64, 64)

    @property
    def pixels_id(self) -> str:
        """Tell apart objects that make other pixels."""
        return f"cls_data.PlainPreprocessing 1, Pillow {PIL.__version__}, {self.size}"

    def at(self, height: int, width: int) -> "PlainPreprocessing":
        """Return the same for another size."""
        return PlainPreprocessing((height, width))

    def decode(self, source: bytes) -> Image.Image:
        """Return the image upright and RGB; whatever Pillow raises for a damaged file, it raises."""
        with Image.open(io.BytesIO(source)) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):  # Pillow's own conversion clips at 255 instead of scaling
            return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
        if upright.mode in ("I", "F"):
            raise ValueError(f"pixels of mode {upright.mode!r} have no defined range; save the image with 8 or 16 bits")
        if upright.mode == "P" and "transparency" in upright.info:
            upright = upright.convert("RGBA")
        return upright.convert("RGB")

    def fit(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize to uint8 [H, W, 3]."""
        return np.asarray(image.resize(self.size[::-1], Image.Resampling.BILINEAR))

    def scale_and_bias(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return what maps levels to 0-1: float32 [3] and [3]."""
        return np.full(3, 1 / 255, np.float32), np.zeros(3, np.float32)
