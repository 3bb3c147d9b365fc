"""Strict image decoding: damaged files raise an error instead of being repaired.

Pillow repairs some damaged files silently: a JPEG whose tail was overwritten may come back with a
gray lower half. libjpeg-turbo reports such repairs as warnings, which simplejpeg turns into errors;
it also decodes small crops several times faster. Pillow does not verify PNG checksums, so they are
verified here. BMP, WebP, and TIFF have no checksums: zeros in place of lost data look like black.
"""

import contextlib
import io
import os
import threading
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL import Image

from cls_export.contract.decoding import DEFAULT_MAX_PIXELS, check_pixel_count
from cls_export.contract.errors import ImageTooLargeError
from cls_export.contract.image_formats import describe_unknown_format, image_format
from cls_export.contract.image_metadata import separate_metadata
from cls_export.contract.orientation import apply_orientation
from cls_export.contract.preprocessing import Preprocessing

_STDERR = 2
_stderr_lock = threading.Lock()


class DamagedImageError(ValueError):
    """The bytes are not a complete, undamaged image."""


class StrictDecoder:
    """Decode to the same pixels as a preprocessing does, but reject damaged files."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing
        self._simplejpeg_matches = _simplejpeg_matches(preprocessing)

    def __call__(self, data: bytes) -> Image.Image:
        """Return the image, upright and RGB.

        Raises:
            DamagedImageError: The bytes are not an image, are cut short, or are damaged.
            ImageTooLargeError: The image has more pixels than the preprocessing accepts.
        """
        kind = image_format(data)
        if kind is None:
            raise DamagedImageError(describe_unknown_format(data))
        try:
            if kind == "JPEG":
                return self._decode_jpeg(data)
            if kind == "TIFF":
                with _silence_stderr():  # libtiff prints there; Pillow raises an error as well
                    return self._preprocessing.decode(data)
            if kind == "PNG":
                _check_png_checksums(data)
            if kind == "GIF":
                _check_gif_blocks(data)
            return self._preprocessing.decode(data)
        except DamagedImageError:
            raise
        except ImageTooLargeError as error:
            raise ImageTooLargeError(_reason(error)) from error
        except Exception as error:  # decoders report damage with almost any exception
            raise DamagedImageError(_reason(error)) from error

    def _decode_jpeg(self, data: bytes) -> Image.Image:
        plain, orientation = separate_metadata(data, "JPEG")
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(plain)
        except ValueError as error:
            if "subsampling" not in str(error):
                raise
            # Unusual, as in CMYK files of some tools. Pillow reads it, but repairs some damage.
            return self._preprocessing.decode(data)
        check_pixel_count(width, height, self._preprocessing.max_pixels)
        # Decode CMYK files, too: this call is the damage check.
        is_rgb = colorspace in ("YCbCr", "Gray", "RGB")
        pixels = simplejpeg.decode_jpeg(plain, "RGB" if is_rgb else "CMYK")
        if is_rgb and self._simplejpeg_matches:
            image = Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)
            return apply_orientation(image, orientation)
        return self._preprocessing.decode(data)  # which decides how to convert CMYK


def _reason(error: Exception) -> str:
    text = str(error).removeprefix("image bytes: ")
    if text.startswith("cannot be decoded ("):
        text = text[len("cannot be decoded (") : -1]
    return text or type(error).__name__


@contextlib.contextmanager
def suppress_pillow_warnings() -> Iterator[None]:
    """Suppress Pillow's warnings while decoding; damaged files raise an error instead.

    Enter this in the main thread, around all decoding threads: warning filters are process-wide.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


@contextlib.contextmanager
def _silence_stderr() -> Iterator[None]:
    """Redirect the process's standard error stream, which C libraries write to, to /dev/null."""
    with _stderr_lock, contextlib.ExitStack() as undo:
        with contextlib.suppress(OSError):  # the stream may be closed
            original = os.dup(_STDERR)
            undo.callback(os.close, original)
            devnull = os.open(os.devnull, os.O_WRONLY)
            undo.callback(os.close, devnull)
            os.dup2(devnull, _STDERR)
            undo.callback(os.dup2, original, _STDERR)
        yield


def _check_png_checksums(data: bytes) -> None:
    """Check that every chunk is complete and matches its CRC-32."""
    start = 8
    chunk_type = b""
    while chunk_type != b"IEND":
        length = int.from_bytes(data[start : start + 4], "big")
        end = start + 8 + length
        if end + 4 > len(data):
            raise DamagedImageError("cut short: a PNG file ends with an IEND chunk")
        content = data[start + 4 : end]
        checksum = int.from_bytes(data[end : end + 4], "big")
        chunk_type = content[:4]
        if zlib.crc32(content) != checksum:
            raise DamagedImageError(f"wrong checksum of chunk {chunk_type!r} at byte {start}")
        start = end + 4


def _check_gif_blocks(data: bytes) -> None:
    """Check that every block is complete, up to the trailer. Bytes after it are ignored."""
    position = 13 + _color_table_length(data[10:11])
    while (kind := data[position : position + 1]) != b";":
        if kind == b"!":  # an extension: its label, and sub-blocks
            position = _skip_sub_blocks(data, position + 2)
        elif kind == b",":  # an image: its rectangle, flags, color table, code size, and sub-blocks
            flags = data[position + 9 : position + 10]
            position += 11 + _color_table_length(flags)
            position = _skip_sub_blocks(data, position)
        elif kind == b"\0":  # some encoders end a sequence of sub-blocks twice
            position += 1
        elif kind:
            raise DamagedImageError(f"a GIF file without a valid block at byte {position}")
        else:
            raise DamagedImageError("cut short: a GIF file ends with a trailer block")


def _skip_sub_blocks(data: bytes, position: int) -> int:
    """Return the end of a sequence of sub-blocks, each with its length, up to an empty one."""
    while position < len(data) and data[position] != 0:
        position += 1 + data[position]
    return position + 1


def _color_table_length(flags: bytes) -> int:
    """Return the bytes of the color table that some flags announce."""
    value = int.from_bytes(flags, "big")
    return 3 << (value & 7) + 1 if value & 0x80 else 0


def _simplejpeg_matches(preprocessing: Preprocessing) -> bool:
    """Return whether simplejpeg gives the same pixels, as it does if Pillow uses libjpeg-turbo."""
    decode = preprocessing.model_copy(update={"max_pixels": DEFAULT_MAX_PIXELS}).decode
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (45, 37, 3), dtype=np.uint8)
    image = Image.fromarray(levels)

    for subsampling in ("4:2:0", "4:4:4"):
        stream = io.BytesIO()
        image.save(
            stream,
            "JPEG",
            quality=80,
            subsampling=subsampling,
        )
        data = stream.getvalue()
        expected = np.asarray(decode(data))
        pixels = simplejpeg.decode_jpeg(data, "RGB")
        if not np.array_equal(pixels, expected):
            return False
    return True
