"""What this package asks of the object that turns image files into pixels."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image


class ImagePreprocessing(Protocol):
    """One description of decode, resize and normalise, shared with the deployed runtime.

    `cls_export.Preprocessing` is the one that the training app uses; this package does not import it.
    """

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pixels, H and W below."""
        ...

    @property
    def pixels_id(self) -> str:
        """Tell apart any two objects that may make other pixels of one file: settings, and versions of libraries."""
        ...

    def at(self, height: int, width: int) -> "ImagePreprocessing":
        """Return the same preprocessing, seeing as much of an image, for pixels of another size."""
        ...

    def decode(self, source: bytes) -> Image:
        """Decode the bytes of one image file, upright and RGB; raise ValueError for a damaged one."""
        ...

    def fit(self, image: Image) -> NDArray[np.uint8]:
        """Resize a decoded image to uint8 [H, W, 3]."""
        ...

    def scale_and_bias(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return float32 [3] and [3]: model input is `pixels * scale + bias`, channel by channel."""
        ...
