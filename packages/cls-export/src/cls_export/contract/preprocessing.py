"""The one implementation of how an image becomes model input.

Shapes: H and W are the height and width of the model's input, N is a number of images. Channels are
in R, G, B order.
"""

import functools
import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from cls_export.contract.decoding import (
    DEFAULT_MAX_PIXELS,
    LARGEST_MAX_PIXELS,
    ImageSource,
    decode_image,
    read_image_file,
)
from cls_export.contract.errors import ImageTooLargeError

Resize = Literal["squash", "letterbox", "shortest_edge"]
Resample = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Rounding = Literal["torchvision", "nearest"]
Side = Annotated[int, Field(ge=1, le=8192)]
MaxPixels = Annotated[int, Field(ge=1, le=LARGEST_MAX_PIXELS)]
Level = Annotated[int, Field(ge=0, le=255)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]

_PIXELS_VERSION = 2
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
        rounding: For `shortest_edge`, how the longer side and the corner of the crop are rounded.
            `torchvision` gives the pixels of the transforms that its weights were evaluated with:
            it truncates the side, and rounds the corner half to even. `nearest` rounds the side and
            truncates the corner; a JSON description without this key means `nearest`, because
            bundles of schema versions 1 and 2 were measured with it.
        fill: R, G, B levels (0-255) of the letterbox border.
        mean: Mean of each channel, for pixels scaled to 0-1.
        std: Standard deviation of each channel, for pixels scaled to 0-1.
        max_pixels: Larger images are refused from the header, before they take memory. The default
            accepts photos of every phone; Pillow takes 4 bytes for a pixel, and up to 16 for WebP.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[Side, Side]
    resize: Resize = "squash"
    resample: Resample = "bilinear"
    resize_to: Side | None = None
    rounding: Rounding = "torchvision"
    fill: tuple[Level, Level, Level] = (0, 0, 0)
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS

    @model_validator(mode="before")
    @classmethod
    def _complete_old_description(cls, settings: Any, info: ValidationInfo) -> Any:
        is_description = info.mode == "json" and isinstance(settings, dict)
        if is_description and settings.get("resize") == "shortest_edge":
            return {"rounding": "nearest", **settings}
        return settings

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

    def read_file(self, path: str | os.PathLike[str]) -> bytes:
        """Read an image file without decoding it.

        Raises:
            ImageError: It cannot be read, is not a regular file, or has more bytes than an image of
                `max_pixels` pixels needs.
        """
        return read_image_file(path, self.max_pixels)

    @property
    def pixels_id(self) -> str:
        """A text that changes whenever the same file would give other pixels."""
        settings = self.model_dump_json(exclude={"mean", "std", "max_pixels"})
        return f"cls_export.Preprocessing {_PIXELS_VERSION}, Pillow {PIL.__version__}, {settings}"

    def describe(self) -> dict[str, Any]:
        """Return the JSON description for a labels mapping.

        Keys that older versions do not know are left out where their values are what reading
        assumes, so that a description of an older version stays as it is.
        """
        description = self.model_dump(mode="json")
        if self.resize != "shortest_edge" or self.rounding == "nearest":
            del description["rounding"]
        if self.max_pixels == DEFAULT_MAX_PIXELS:
            del description["max_pixels"]
        return description

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

        It is rotated by EXIF or XMP, alpha is dropped, and 16-bit levels are reduced to 8.

        Raises:
            ImageTooLargeError: The image has more than `max_pixels` pixels.
            ImageError: The source is not an image in one of the accepted formats, is damaged, or is
                an array of another shape or dtype.
        """
        return decode_image(source, self.max_pixels)

    def resize_image(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize an RGB image to the model's input: uint8 [H, W, 3].

        Raises:
            ImageTooLargeError: Scaled for `shortest_edge`, the image would have more than
                `max_pixels` pixels.
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
        scaled_width = max(1, round(image.width * ratio))
        scaled_height = max(1, round(image.height * ratio))
        scaled = image.resize((scaled_width, scaled_height), _RESAMPLING[self.resample])

        left = (width - scaled_width) // 2
        top = (height - scaled_height) // 2
        canvas = Image.new("RGB", (width, height), self.fill)
        canvas.paste(scaled, (left, top))
        return canvas

    def _resize_shortest_edge(self, image: Image.Image) -> Image.Image:
        scaled_width, scaled_height = self._scaled_size(image.width, image.height)
        if scaled_width * scaled_height > self.max_pixels:
            raise ImageTooLargeError(
                f"{image.width}x{image.height} px is too elongated: with a shorter side of "
                f"{self.resize_to} px it would be over the limit of {self.max_pixels:,} pixels "
                "(preprocessing.max_pixels)"
            )
        scaled = image.resize((scaled_width, scaled_height), _RESAMPLING[self.resample])

        height, width = self.size
        left = self._crop_start(scaled_width - width)
        top = self._crop_start(scaled_height - height)
        return scaled.crop((left, top, left + width, top + height))

    def _scaled_size(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height for a shorter side of `resize_to`."""
        assert self.resize_to is not None
        shorter = min(width, height)
        if self.rounding == "nearest":
            ratio = self.resize_to / shorter
            return round(width * ratio), round(height * ratio)
        return (
            int(self.resize_to * width / shorter),
            int(self.resize_to * height / shorter),
        )

    def _crop_start(self, margin: int) -> int:
        """Return the first row or column of a centered crop, from the number outside of it."""
        return margin // 2 if self.rounding == "nearest" else round(margin / 2)


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
