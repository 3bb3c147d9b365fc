"""Decoding of images to upright RGB."""

import io
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cls_export.contract.errors import ImageError
from cls_export.contract.files import read_bytes
from cls_export.contract.image_formats import MAX_PIXELS, SUFFIXES

ImageSource = bytes | str | PathLike[str] | Image.Image | NDArray[np.uint8]
"""File bytes, a path, a Pillow image, or a uint8 array [height, width, 3] in R, G, B order."""

_ORIENTATION = ExifTags.Base.Orientation


def decode_image(source: ImageSource) -> Image.Image:
    """Decode an image to RGB at its own size.

    It is rotated by EXIF, alpha is dropped, and 16-bit levels are reduced to 8.

    Raises:
        ImageError: The source is not an image in one of the accepted formats, is damaged, has more
            than `MAX_PIXELS` pixels, or is an array of another shape or dtype.
    """
    if isinstance(source, np.ndarray):
        array = validate_array(source)
        height, width, _ = array.shape

        # The same image as from Image.fromarray, in fewer steps.
        return Image.frombytes("RGB", (width, height), array.tobytes())

    if isinstance(source, Image.Image):
        return _load_rgb(source, "the Pillow image")
    if isinstance(source, bytes):
        return _decode_bytes(source, "image bytes")
    if isinstance(source, str | PathLike):
        data = read_bytes(source, error=ImageError)
        return _decode_bytes(data, str(source))
    raise ImageError(
        f"got a {type(source).__name__}; expected a path, bytes, a Pillow image, or an array"
    )


def validate_array(array: Any) -> NDArray[np.uint8]:
    """Return the array if it is uint8 [height, width, 3].

    Raises:
        ImageError: It is not; the message tells how to convert it.
    """
    if not isinstance(array, np.ndarray):
        hint = "; cv2.imread returns None if it cannot read the file" if array is None else ""
        raise ImageError(
            f"got a {type(array).__name__}; expected an array, uint8 [height, width, 3]{hint}"
        )
    is_image = array.ndim == 3 and array.shape[2] == 3 and 0 not in array.shape
    if array.dtype != np.uint8 or not is_image:
        raise ImageError(
            f"got an array of shape {array.shape} and dtype {array.dtype}; "
            f"expected uint8 [height, width, 3]{_conversion_hint(array)}"
        )
    return array


def _decode_bytes(data: bytes, name: str) -> Image.Image:
    try:
        # Without the list of formats, Pillow would start Ghostscript for EPS bytes.
        image = Image.open(io.BytesIO(data), formats=list(SUFFIXES))
    except UnidentifiedImageError as error:  # its message holds the address of the stream
        raise ImageError(
            f"{name}: cannot be decoded ({len(data)} bytes in none of the accepted formats: "
            f"{', '.join(SUFFIXES)})"
        ) from error
    except Exception as error:
        raise ImageError(f"{name}: cannot be decoded ({error})") from error
    with image:
        return _load_rgb(image, name)


def _load_rgb(image: Image.Image, name: str) -> Image.Image:
    try:
        width, height = image.size
        pixels = width * height
        if pixels > MAX_PIXELS:
            raise ImageError(f"{width}x{height} px is over the limit of {MAX_PIXELS:,} pixels")
        image.load()
        return _convert_to_rgb(image)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except Exception as error:  # Pillow reports damage by nearly any type, even struct.error
        raise ImageError(f"{name}: cannot be decoded ({error})") from error


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"the image is empty ({image.width}x{image.height} px)")

    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)

    if image.mode.startswith("I;16"):
        # Pillow clips 16-bit levels at 255, which turns the image white.
        levels = np.asarray(image) >> 8
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError(
            f"pixels of mode {image.mode!r} have no defined range; save the image with 8 or 16 bits"
        )
    if image.mode == "P" and "transparency" in image.info:
        # Straight to RGB, Pillow warns and may use a wrong palette entry.
        image = image.convert("RGBA")

    if image.mode != "RGB":
        image = image.convert("RGB")
    return image


def _conversion_hint(array: NDArray[Any]) -> str:
    """Return how to convert a common kind of array to what is expected."""
    shape = array.shape
    if 0 in shape:
        return "; this array is empty"
    if array.ndim == 4:
        return "; for a batch of images, pass list(array)"
    if array.dtype.kind == "f":
        return _float_hint(array)
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


def _float_hint(array: NDArray[np.floating[Any]]) -> str:
    if not np.isfinite(array).all():
        return "; some values are NaN or infinite"
    if array.min() < 0:
        return "; some values are below 0: pass the image as it was before normalization"
    if array.max() > 1:
        return "; from levels of 0 to 255: array.round().clip(0, 255).astype(np.uint8)"
    return "; from levels of 0 to 1: (array * 255).round().astype(np.uint8)"
