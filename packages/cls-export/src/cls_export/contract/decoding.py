"""Decoding of images to upright RGB."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from cls_export.contract.errors import ImageError, ImageTooLargeError
from cls_export.contract.files import read_bytes
from cls_export.contract.image_formats import SUFFIXES, describe_unknown_format, image_format
from cls_export.contract.image_metadata import read_webp_size, separate_metadata
from cls_export.contract.orientation import (
    ORIENTATION_TAG,
    apply_orientation,
    choose_orientation,
)

ImageSource = bytes | str | PathLike[str] | Image.Image | NDArray[np.uint8]
"""File bytes, a path, a Pillow image, or a uint8 array [height, width, 3] in R, G, B order."""

DEFAULT_MAX_PIXELS: Final = 200_000_000
"""The largest sensors of phones have 16320 x 12240 pixels. Pillow takes 0.8 GB for that many, and
up to 3 GB for a WebP file. A file of 500 kB can state as many, so set a lower limit
(`Preprocessing.max_pixels`) where strangers upload images."""

LARGEST_MAX_PIXELS: Final = 2**31 - 1
"""Pillow cannot hold larger images."""

_BYTES_PER_PIXEL = 4
_MAX_METADATA = 64 * 2**20
"""Bytes of metadata and of whatever follows the image, such as the video of a motion photo."""

_DECODERS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}
"""Pillow's decoders. Image.open knows others, of which one starts Ghostscript, and it warns about
images of more than 89 million pixels."""

_MPO = "MPO"
"""Pillow's name for a JPEG that is followed by previews, as phones write."""

_FIRST_TRANSPOSING_ORIENTATION = 5
"""The EXIF orientations 5 to 8 swap width and height."""

_PILLOW_LIMIT = 89_000_000
"""Up to this many pixels, Pillow does not warn."""

_pillow_limit_lock = threading.Lock()


def decode_image(source: ImageSource, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Decode an image to RGB at its own size.

    It is rotated by EXIF or XMP, alpha is dropped, and 16-bit levels are reduced to 8.

    Raises:
        ImageTooLargeError: The image has more than `max_pixels` pixels.
        ImageError: The source is not an image in one of the accepted formats, is damaged, or is an
            array of another shape or dtype.
    """
    if isinstance(source, np.ndarray):
        array = validate_array(source)
        height, width, _ = array.shape

        # The same image as from Image.fromarray, in fewer steps.
        return Image.frombytes("RGB", (width, height), array.tobytes())

    if isinstance(source, Image.Image):
        return _convert_pillow_image(source, max_pixels)
    if isinstance(source, bytes):
        return _decode_bytes(source, "image bytes", max_pixels)
    if isinstance(source, str | PathLike):
        data = read_image_file(source, max_pixels)
        return _decode_bytes(data, str(source), max_pixels)
    hint = "; pass stream.read() for a stream" if hasattr(source, "read") else ""
    raise ImageError(
        f"got a {type(source).__name__}; expected a path, bytes, a Pillow image, or an array{hint}"
    )


def read_image_file(path: str | PathLike[str], max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """Read an image file without decoding it.

    Raises:
        ImageError: It cannot be read, is not a regular file, or has more bytes than an image of
            `max_pixels` pixels needs.
    """
    max_bytes = max_pixels * _BYTES_PER_PIXEL + _MAX_METADATA
    return read_bytes(path, error=ImageError, max_bytes=max_bytes)


def read_image_size(
    data: bytes, name: str = "image bytes", max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[int, int]:
    """Return the upright width and height of an image file, without decoding its pixels.

    Args:
        data: The file.
        name: Start of messages.
        max_pixels: Largest number of pixels.

    Raises:
        ImageError: The format is not accepted, the header is damaged, or the image is too large.
    """
    with _named_errors(name):
        image, orientation = _open_file(data, max_pixels)
        with image:
            width, height = image.size
    is_transposed = orientation >= _FIRST_TRANSPOSING_ORIENTATION
    return (height, width) if is_transposed else (width, height)


def check_pixel_count(width: int, height: int, max_pixels: int) -> None:
    """Raise an `ImageTooLargeError` if an image has more than `max_pixels` pixels."""
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{width}x{height} px is over the limit of {max_pixels:,} pixels "
            "(preprocessing.max_pixels)"
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


def _decode_bytes(data: bytes, name: str, max_pixels: int) -> Image.Image:
    with _named_errors(name):
        return _decode_file(data, max_pixels)


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turn any error into an `ImageError` that starts with the name of the image."""
    try:
        yield
    except ImageTooLargeError as error:
        raise ImageTooLargeError(f"{name}: {error}") from error
    except Exception as error:  # Pillow reports damage by nearly any type, even struct.error
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name}: cannot be decoded ({reason})") from error


def _decode_file(data: bytes, max_pixels: int) -> Image.Image:
    image, orientation = _open_file(data, max_pixels)
    with image:
        with _raise_pillow_limit(image.size if image.format == "TIFF" else None):
            image.load()
        rgb = _convert_to_rgb(image)
    upright = apply_orientation(rgb, orientation)
    upright.info = {}  # otherwise it would be rotated again if it is decoded again
    return upright


def _open_file(data: bytes, max_pixels: int) -> tuple[Image.Image, int]:
    """Return an image whose pixels are not decoded yet, and its orientation."""
    kind = image_format(data)
    if kind is None:
        raise ImageError(describe_unknown_format(data))

    plain, orientation = separate_metadata(data, kind)
    canvas = read_webp_size(plain) if kind == "WEBP" else None
    if canvas is not None:
        check_pixel_count(*canvas, max_pixels)

    with _raise_pillow_limit(canvas):
        image = _DECODERS[kind](io.BytesIO(plain))
    check_pixel_count(*image.size, max_pixels)
    return image, orientation


@contextmanager
def _raise_pillow_limit(size: tuple[int, int] | None) -> Iterator[None]:
    """Raise Pillow's own limit for a TIFF or WebP image that is over it.

    The limit is global, so that only one thread at a time decodes such an image.
    """
    if size is None or size[0] * size[1] <= _PILLOW_LIMIT:
        yield
        return

    with _pillow_limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None if limit is None else max(limit, size[0] * size[1])
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _convert_pillow_image(image: Image.Image, max_pixels: int) -> Image.Image:
    try:
        if isinstance(image, ImageFile.ImageFile) and image.format not in (*SUFFIXES, _MPO):
            # Decoding happens when pixels are first used, and for EPS it starts Ghostscript.
            raise ImageError(
                f"opened from a file in the format {image.format}, which is none of the accepted "
                f"formats: {', '.join(SUFFIXES)}; pass image.convert('RGB') if the file is trusted"
            )
        check_pixel_count(*image.size, max_pixels)
        image.load()
        rgb = _convert_to_rgb(image)
        upright = apply_orientation(rgb, _read_pillow_orientation(image))
        if upright is not rgb:
            upright.info = {}
        return upright
    except ImageError as error:
        raise type(error)(f"the Pillow image: {error}") from error
    except Exception as error:
        raise ImageError(f"the Pillow image: cannot be decoded ({error})") from error


def _read_pillow_orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # entries that have nothing to do with the orientation are malformed
        exif = image.info.get("exif", b"")
        return choose_orientation([exif] if isinstance(exif, bytes) else [])
    return orientation if orientation in range(1, 9) else 1


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"the image is empty ({image.width}x{image.height} px)")

    is_16_bit_pgm = image.mode == "I" and image.format == "PPM"
    if image.mode.startswith("I;16") or is_16_bit_pgm:
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
    if array.dtype.names:
        fields = ", ".join(map(repr, array.dtype.names))
        return f"; from fields: np.stack([array[name] for name in ({fields})], axis=-1)"
    if array.ndim == 1 and array.dtype == np.uint8:
        return "; for the bytes of an image file, pass array.tobytes()"
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
