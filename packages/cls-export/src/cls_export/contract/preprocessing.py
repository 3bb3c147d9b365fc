"""The one implementation of how an image becomes model input.

Shapes: H and W are the height and width of the model's input, N is a number of images. Channels are
in R, G, B order.
"""

import functools
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cls_export.contract.decoding import ImageSource, decode_image
from cls_export.contract.errors import ImageError
from cls_export.contract.image_formats import MAX_PIXELS

Resize = Literal["squash", "letterbox", "shortest_edge"]
Resample = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Side = Annotated[int, Field(ge=1, le=8192)]
Level = Annotated[int, Field(ge=0, le=255)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]

_PIXELS_VERSION = 1
"""Increase it when the same file and settings would give other pixels."""

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Preprocessing(BaseModel):
    """Decode, resize, and normalize images, the same way in training and in the deployed runtime.

    Attributes:
        size: Height and width of the model's input, in pixels.
        resize: `squash` changes the aspect ratio. `letterbox` keeps it and pads with `fill`.
            `shortest_edge` keeps it, scales the shorter side to `resize_to`, and crops the center.
        resample: Pillow's filter. All but `nearest` are antialiased.
        resize_to: For `shortest_edge`, the length of the shorter side before the crop, in pixels.
        fill: R, G, B levels (0-255) of the letterbox border.
        mean: Mean of each channel, for pixels scaled to 0-1.
        std: Standard deviation of each channel, for pixels scaled to 0-1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[Side, Side]
    resize: Resize = "squash"
    resample: Resample = "bilinear"
    resize_to: Side | None = None
    fill: tuple[Level, Level, Level] = (0, 0, 0)
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]

    @model_validator(mode="after")
    def _check_resize_to(self) -> Self:
        if self.resize != "shortest_edge":
            if self.resize_to is not None:
                raise ValueError(
                    f"resize_to needs resize='shortest_edge', and resize is {self.resize!r}"
                )
        elif self.resize_to is None or self.resize_to < max(self.size):
            raise ValueError(
                f"resize='shortest_edge' needs resize_to of at least {max(self.size)} "
                f"(the longer side of size={self.size}), got {self.resize_to}"
            )
        return self

    def __call__(self, source: ImageSource) -> NDArray[np.float32]:
        """Return the model input for one image: float32 [1, 3, H, W]. Raises like `decode`."""
        pixels = self.load_pixels(source)
        return self.normalize(pixels[None])

    def load_pixels(self, source: ImageSource) -> NDArray[np.uint8]:
        """Decode and resize one image: uint8 [H, W, 3]. Raises like `decode`."""
        image = self.decode(source)
        return self.resize_image(image)

    @property
    def pixels_id(self) -> str:
        """A text that changes whenever the same file would give other pixels."""
        settings = self.model_dump_json(exclude={"mean", "std"})
        return f"cls_export.Preprocessing {_PIXELS_VERSION}, Pillow {PIL.__version__}, {settings}"

    def with_size(self, height: int, width: int) -> Self:
        """Return the same preprocessing for another size, with the same field of view."""
        settings = self.model_dump()
        settings["size"] = (height, width)
        if self.resize_to is not None:
            ratio = max(height / self.size[0], width / self.size[1])
            resize_to = round(self.resize_to * ratio)
            settings["resize_to"] = max(height, width, resize_to)
        return self.model_validate(settings)

    def decode(self, source: ImageSource) -> Image.Image:
        """Decode an image to RGB at its own size.

        It is rotated by EXIF, alpha is dropped, and 16-bit levels are reduced to 8.

        Raises:
            ImageError: The source is not an image in one of the accepted formats, is damaged, has
                more than `MAX_PIXELS` pixels, or is an array of another shape or dtype.
        """
        return decode_image(source)

    def resize_image(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize an RGB image to the model's input: uint8 [H, W, 3].

        Raises:
            ImageError: Scaled for `shortest_edge`, the image would have more than `MAX_PIXELS`.
        """
        if self.resize == "letterbox":
            resized = self._letterbox(image)
        elif self.resize == "shortest_edge":
            resized = self._resize_shortest_edge(image)
        else:
            height, width = self.size
            resample = _RESAMPLING[self.resample]
            resized = image.resize((width, height), resample)
        return np.asarray(resized)

    def normalize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map uint8 [N, H, W, 3] to float32 [N, 3, H, W], as `scale_and_bias` says."""
        scale, bias = _scale_and_bias(self.mean, self.std)
        count, height, width, channels = pixels.shape

        planes = np.empty((count, channels, height, width), np.float32)
        planes[...] = pixels.transpose(0, 3, 1, 2)
        planes *= scale[:, None, None]
        planes += bias[:, None, None]
        return planes

    def scale_and_bias(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return `(v / 255 - mean) / std` as a scale and a bias, float32 [3] each.

        A multiplication and then an addition, each rounded to float32, give the same bits in NumPy
        and in PyTorch on every device, so training may normalize a whole batch on the device.
        """
        scale, bias = _scale_and_bias(self.mean, self.std)
        return scale.copy(), bias.copy()

    def _letterbox(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        ratio = min(width / image.width, height / image.height)
        scaled = self._scale(image, ratio)

        left = (width - scaled.width) // 2
        top = (height - scaled.height) // 2
        canvas = Image.new("RGB", (width, height), self.fill)
        canvas.paste(scaled, (left, top))
        return canvas

    def _resize_shortest_edge(self, image: Image.Image) -> Image.Image:
        assert self.resize_to is not None
        ratio = self.resize_to / min(image.size)
        if image.width * image.height * ratio**2 > MAX_PIXELS:
            raise ImageError(
                f"{image.width}x{image.height} px is too elongated: with a shorter side of "
                f"{self.resize_to} px it would be over the limit of {MAX_PIXELS:,} pixels"
            )

        height, width = self.size
        scaled = self._scale(image, ratio)
        left = (scaled.width - width) // 2
        top = (scaled.height - height) // 2
        return scaled.crop((left, top, left + width, top + height))

    def _scale(self, image: Image.Image, ratio: float) -> Image.Image:
        width = max(1, round(image.width * ratio))
        height = max(1, round(image.height * ratio))
        resample = _RESAMPLING[self.resample]
        return image.resize((width, height), resample)


@functools.lru_cache(maxsize=8)  # keyed by value: model_copy may change the constants
def _scale_and_bias(
    mean: Sequence[float], std: Sequence[float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the arrays of `Preprocessing.scale_and_bias`, shared: callers must not change them."""
    means = np.asarray(mean, dtype=np.float64)
    stds = np.asarray(std, dtype=np.float64)
    scale = 1.0 / (255.0 * stds)
    bias = -means / stds
    return scale.astype(np.float32), bias.astype(np.float32)
