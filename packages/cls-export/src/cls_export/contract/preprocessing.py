"""How an image becomes model input: the one description, and the one implementation.

Shapes: H, W are the height and width of the model's input, N a number of images; channels are R, G, B.
"""

import functools
import io
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cls_export.contract.errors import ImageError
from cls_export.contract.image_formats import MAX_PIXELS

ImageSource = bytes | str | PathLike[str] | Image.Image | NDArray[np.uint8]
"""File bytes, a path, a Pillow image, or a uint8 array [height, width, 3] in R, G, B order."""

_PIXELS_VERSION = 1  # raise it when the same file and settings would give other pixels
_ORIENTATION = ExifTags.Base.Orientation
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

Resize = Literal["squash", "letterbox", "shortest_edge"]
Resample = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Side = Annotated[int, Field(ge=1, le=8192)]
Level = Annotated[int, Field(ge=0, le=255)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


class Preprocessing(BaseModel):
    """Decode, resize, normalize. The same object serves validation, test, export and the deployed runtime.

    Attributes:
        size: height and width of the model's input, in pixels.
        resize: `squash` changes the aspect ratio; `letterbox` keeps it and pads with `fill`;
            `shortest_edge` keeps it, scales the shorter side to `resize_to` and cuts the center.
        resample: Pillow's filter; it is antialiased when it shrinks (all but `nearest`).
        resize_to: for `shortest_edge`, the length in pixels of the shorter side before the cut.
        fill: R, G, B levels (0-255) of the letterbox's border.
        mean: per channel, of pixels scaled to 0-1.
        std: per channel, of pixels scaled to 0-1.
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
    def _resize_to_fits_its_mode(self) -> Self:
        if self.resize != "shortest_edge":
            if self.resize_to is not None:
                raise ValueError(
                    f"resize_to is for resize='shortest_edge' alone, and resize is {self.resize!r}"
                )
        elif self.resize_to is None or self.resize_to < max(self.size):
            raise ValueError(
                f"resize='shortest_edge' needs resize_to of at least {max(self.size)} "
                f"(the longer side of size={self.size}), got {self.resize_to}"
            )
        return self

    def __call__(self, source: ImageSource) -> NDArray[np.float32]:
        """Return model input for one image: float32 [1, 3, H, W].

        Raises:
            ImageError: the source cannot be decoded, or is an array of another shape or dtype.
        """
        return self.normalize(self.pixels(source)[None])

    def pixels(self, source: ImageSource) -> NDArray[np.uint8]:
        """Decode (unless decoded already) and resize one image: uint8 [H, W, 3].

        Raises:
            ImageError: the source cannot be decoded, or is an array of another shape or dtype.
        """
        return self.fit(self.decode(source))

    @property
    def pixels_id(self) -> str:
        """All that decides which pixels an image becomes: settings, this code and Pillow, as one text."""
        settings = self.model_dump_json(exclude={"mean", "std"})
        return f"cls_export.Preprocessing {_PIXELS_VERSION}, Pillow {PIL.__version__}, {settings}"

    def at(self, height: int, width: int) -> Self:
        """Return the same preprocessing for another size, such as that of stored images: it sees as much of each."""
        settings: dict[str, object] = {"size": (height, width)}
        if self.resize_to is not None:
            ratio = max(height / self.size[0], width / self.size[1])
            settings["resize_to"] = max(height, width, round(self.resize_to * ratio))
        return self.model_validate({**self.model_dump(), **settings})

    def decode(self, source: ImageSource) -> Image.Image:
        """Return the image as RGB at its own size, upright (EXIF applied), without alpha, 16 bits cut to 8.

        Raises:
            ImageError: not an image, truncated, more than `MAX_PIXELS`, or an array of another shape or dtype.
        """
        return _decode(source)

    def fit(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize an RGB image to the model's input: uint8 [H, W, 3]."""
        return np.asarray(self._resized(image))

    def normalize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map uint8 [N, H, W, 3] to float32 [N, 3, H, W] as `pixels * scale + bias`, in that order of operations."""
        scale, bias = _scale_and_bias(self.mean, self.std)
        count, height, width, channels = pixels.shape
        planes = np.empty((count, channels, height, width), np.float32)
        planes[...] = pixels.transpose(0, 3, 1, 2)
        planes *= scale[:, None, None]
        planes += bias[:, None, None]
        return planes

    def scale_and_bias(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return `(v / 255 - mean) / std` as one multiplication and one addition: two float32 arrays [3].

        A multiplication and an addition, each rounded to float32, give the same bits in numpy and in torch
        on every device, so training may apply them to a whole batch where it lies.
        """
        scale, bias = _scale_and_bias(self.mean, self.std)
        return scale.copy(), bias.copy()

    def _resized(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        resample = _RESAMPLING[self.resample]
        if self.resize == "squash":
            return image.resize((width, height), resample)
        if self.resize == "letterbox":
            ratio = min(width / image.width, height / image.height)
            inner = image.resize(
                (_scaled(image.width, ratio), _scaled(image.height, ratio)), resample
            )
            canvas = Image.new("RGB", (width, height), self.fill)
            canvas.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
            return canvas
        assert self.resize_to is not None
        ratio = self.resize_to / min(image.size)
        if image.width * image.height * ratio**2 > MAX_PIXELS:
            raise ImageError(
                f"{image.width}x{image.height} px is so oblong that, scaled to a shorter side of {self.resize_to}, "
                f"it would be over the limit of {MAX_PIXELS:,} pixels"
            )
        inner = image.resize((_scaled(image.width, ratio), _scaled(image.height, ratio)), resample)
        left, top = (inner.width - width) // 2, (inner.height - height) // 2
        return inner.crop((left, top, left + width, top + height))


@functools.lru_cache(maxsize=8)  # by value: a copy of a model, changed, has other constants
def _scale_and_bias(
    mean: Sequence[float], std: Sequence[float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what `Preprocessing.scale_and_bias` does, for all callers: not to be changed."""
    means, stds = np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64)
    return (1.0 / (255.0 * stds)).astype(np.float32), (-means / stds).astype(np.float32)


def _decode(source: ImageSource) -> Image.Image:
    if isinstance(source, np.ndarray):
        array = checked_array(source)
        # What Image.fromarray comes to for such an array, in fewer steps.
        return Image.frombytes("RGB", (array.shape[1], array.shape[0]), array.tobytes())
    if isinstance(source, Image.Image):
        return _loaded(source, "the image given")
    if not isinstance(source, bytes | str | PathLike):
        raise ImageError(
            f"a {type(source).__name__} was given; expected a path, bytes, a Pillow image or an array"
        )
    name = "image bytes" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        raise ImageError(
            f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    try:
        image = Image.open(io.BytesIO(data))
    except Exception as error:
        # What Pillow says of an unknown format names the stream's address.
        said = "no format that Pillow knows" if isinstance(error, UnidentifiedImageError) else error
        raise ImageError(
            f"{name}: not a whole, readable image ({len(data)} bytes; {said})"
        ) from error
    with image:
        return _loaded(image, name)


def _loaded(image: Image.Image, name: str) -> Image.Image:
    # Pillow reports a damaged file by nearly any exception, from SyntaxError to struct.error, by its format.
    try:
        _refuse_huge(image)
        image.load()
        return _as_rgb(image)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except Exception as error:
        raise ImageError(f"{name}: not a whole, readable image ({error})") from error


def _refuse_huge(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"{image.width}x{image.height} px is over the limit of {MAX_PIXELS:,} pixels"
        )


def checked_array(array: Any) -> NDArray[np.uint8]:
    """Return the array, if it is one of uint8 [height, width, 3].

    Raises:
        ImageError: it is not; the message says what makes it one.
    """
    if not isinstance(array, np.ndarray):
        hint = "; cv2.imread gives None for a file that it cannot read" if array is None else ""
        raise ImageError(
            f"a {type(array).__name__} was given; expected an array, uint8 [height, width, 3]{hint}"
        )
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ImageError(
            f"an array of shape {array.shape} and dtype {array.dtype} was given; "
            f"expected uint8 [height, width, 3]{_hint(array)}"
        )
    return array


def _hint(array: NDArray[Any]) -> str:
    """Say how the likeliest kinds of other arrays become what is expected."""
    shape = array.shape
    if 0 in shape:
        return "; this one is empty"
    if array.ndim == 4:
        return "; these are several images: pass list(array)"
    if array.dtype.kind == "f":
        return _hint_for_floats(array)
    if array.dtype == np.uint16:
        return "; from 16 bits: (array >> 8).astype(np.uint8)"
    if array.dtype == np.bool_:
        return "; from True and False: array.astype(np.uint8) * 255"
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        return "; from levels of 0 to 255: array.astype(np.uint8)"
    if array.ndim == 2 or shape[2:] == (1,):
        return "; from gray levels: np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)"
    if array.ndim == 3 and shape[0] == 3 and shape[2] != 3:
        return "; from channels first: array.transpose(1, 2, 0)"
    if array.ndim == 3 and shape[2] == 4:
        return "; without alpha: array[..., :3]"
    return ""


def _hint_for_floats(array: NDArray[np.floating[Any]]) -> str:
    if not np.isfinite(array).all():
        return "; some of its values are no finite numbers"
    if array.min() < 0:
        return "; some of its values are below 0: give the image as it was before it was normalized"
    if array.max() > 1:
        return "; from levels of 0 to 255: array.round().clip(0, 255).astype(np.uint8)"
    return "; from levels of 0 to 1: (array * 255).round().astype(np.uint8)"


def _as_rgb(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"the image is empty ({image.width}x{image.height} px)")
    upright = image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 instead of scaling, which turns the picture white.
        return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
    if upright.mode in ("I", "F"):
        raise ImageError(
            f"pixels of mode {upright.mode!r} have no defined range; save the image with 8 or 16 bits"
        )
    if upright.mode == "P" and "transparency" in upright.info:
        upright = upright.convert(
            "RGBA"
        )  # straight to RGB, Pillow warns and may keep the wrong palette entry
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def _scaled(length: int, ratio: float) -> int:
    return max(1, round(length * ratio))
