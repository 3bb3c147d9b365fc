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
from PIL import Image, UnidentifiedImageError

from cls_export.contract.image_formats import MAX_PIXELS, SUFFIXES, image_format
from cls_export.contract.preprocessing import Preprocessing

_UNKNOWN_FORMAT = f"not an image of a known format ({', '.join(SUFFIXES)})"
_STDERR = 2
_stderr_lock = threading.Lock()


class DamagedImageError(ValueError):
    """The bytes are not a complete, undamaged image."""


class HugeImageError(ValueError):
    """The header claims more than `MAX_PIXELS` pixels."""


class StrictDecoder:
    """Decode to the same pixels as a preprocessing does, but reject damaged files."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing
        self._simplejpeg_matches = _simplejpeg_matches(preprocessing)

    def __call__(self, data: bytes) -> Image.Image:
        """Return the image, upright and RGB.

        Raises:
            DamagedImageError: The bytes are not an image, are cut short, or are damaged.
            HugeImageError: The image has more than `MAX_PIXELS` pixels.
        """
        kind = image_format(data)
        if kind is None:  # Pillow would start Ghostscript for EPS bytes
            raise DamagedImageError(_UNKNOWN_FORMAT)
        try:
            if kind == "JPEG":
                return self._decode_jpeg(data)
            if kind == "TIFF":
                with _silence_stderr():  # libtiff prints there; Pillow raises an error as well
                    return self._decode_with_pillow(data)
            if kind == "PNG":
                _check_png_checksums(data)
            if kind == "GIF" and not data.endswith(b";"):
                raise DamagedImageError("cut short: a GIF file ends with a semicolon")
            return self._decode_with_pillow(data)
        except (DamagedImageError, HugeImageError):
            raise
        except Exception as error:  # decoders report damage with almost any exception
            raise DamagedImageError(str(error) or type(error).__name__) from error

    def _decode_with_pillow(self, data: bytes) -> Image.Image:
        width, height = _read_size(data)
        _check_size(width, height)
        return self._preprocessing.decode(data)

    def _decode_jpeg(self, data: bytes) -> Image.Image:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height)
        # Decode CMYK files, too: this call is the damage check.
        is_rgb = colorspace in ("YCbCr", "Gray", "RGB")
        pixels = simplejpeg.decode_jpeg(data, "RGB" if is_rgb else "CMYK")
        # Preprocessing decides how to rotate by EXIF or XMP and how to convert CMYK.
        may_be_rotated = b"Exif\0\0" in data or b"tiff:Orientation" in data
        if is_rgb and self._simplejpeg_matches and not may_be_rotated:
            return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)
        return self._preprocessing.decode(data)


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


def _read_size(data: bytes) -> tuple[int, int]:
    """Return width and height from the header."""
    stream = io.BytesIO(data)
    try:
        with Image.open(stream, formats=list(SUFFIXES)) as image:
            return image.size
    except UnidentifiedImageError as error:  # its message contains a memory address
        raise DamagedImageError("not an image of a known format") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise HugeImageError(
            f"over the limit of {MAX_PIXELS:,} pixels ({error})",
        ) from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise HugeImageError(
            f"{width}x{height} px is over the limit of {MAX_PIXELS:,} pixels",
        )


def _simplejpeg_matches(preprocessing: Preprocessing) -> bool:
    """Return whether simplejpeg gives the same pixels, as it does if Pillow uses libjpeg-turbo."""
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
        expected = np.asarray(preprocessing.decode(data))
        pixels = simplejpeg.decode_jpeg(data, "RGB")
        if not np.array_equal(pixels, expected):
            return False
    return True
