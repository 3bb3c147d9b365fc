"""Image bytes to upright RGB pixels, strictly: a file that is damaged anywhere is refused, however well it displays.

Pillow repairs what it can without a word: of JPEG files whose tail was overwritten it returns some with gray below.
libjpeg-turbo reports such repairs as warnings; simplejpeg makes them errors, and decodes small crops many times faster.
Of PNG files Pillow leaves the checksums alone; they are looked at here. BMP, WebP and TIFF have none: within their
pixels, zeros where data was lost cannot be told from black.
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

_stderr = threading.Lock()


class DamagedImageError(ValueError):
    """The bytes are no whole image; the message says what the decoder found."""


class HugeImageError(ValueError):
    """The header promises more pixels than are allowed."""


class StrictDecoder:
    """Decodes as the given preprocessing does, to the same pixels, but refuses what that may repair.

    Args:
        preprocessing: whose `decode` says what the pixels are.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing
        self._same_pixels = _agrees(preprocessing)

    def __call__(self, data: bytes) -> Image.Image:
        """Return the image, upright and RGB.

        Raises:
            DamagedImageError: not an image, cut short, or with damaged data.
            HugeImageError: more than `MAX_PIXELS`.
        """
        kind = image_format(data)
        if kind is None:  # Pillow would ask Ghostscript for some
            raise DamagedImageError(f"not an image of a known format ({', '.join(SUFFIXES)})")
        try:
            if kind == "JPEG":
                return self._jpeg(data)
            if kind == "PNG":
                _refuse_damaged_png(data)
            if kind == "GIF" and not data.endswith(b";"):
                raise DamagedImageError("cut short: a GIF file ends with a semicolon")
            with _silent_libtiff() if kind == "TIFF" else contextlib.nullcontext():
                _refuse_huge(*_size(data))
                return self._preprocessing.decode(data)
        except (DamagedImageError, HugeImageError):
            raise
        except Exception as error:  # decoders report damage by nearly any exception
            raise DamagedImageError(str(error) or type(error).__name__) from error

    def _jpeg(self, data: bytes) -> Image.Image:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        _refuse_huge(width, height)
        plain = colors in ("YCbCr", "Gray", "RGB")
        pixels = simplejpeg.decode_jpeg(data, "RGB" if plain else "CMYK")
        # EXIF or XMP may turn the image, and CMYK has conventions of its own: what to make of them, preprocessing says.
        if (
            plain
            and self._same_pixels
            and b"Exif\0\0" not in data
            and b"tiff:Orientation" not in data
        ):
            return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)
        return self._preprocessing.decode(data)


@contextlib.contextmanager
def quiet_decoding() -> Iterator[None]:
    """Keep to itself what Pillow warns of: a file is either refused here, or as good as preprocessing needs it.

    To be used around all threads that decode, not in one of them: filters of warnings are the whole process's.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


@contextlib.contextmanager
def _silent_libtiff() -> Iterator[None]:
    """Send to nowhere what libtiff writes to the standard error stream, past Python; Pillow raises an error, too."""
    with _stderr, contextlib.ExitStack() as undo:
        with contextlib.suppress(OSError):  # the stream may be closed
            kept = os.dup(2)
            undo.callback(os.close, kept)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            undo.callback(os.close, nowhere)
            os.dup2(nowhere, 2)
            undo.callback(os.dup2, kept, 2)
        yield


def _refuse_damaged_png(data: bytes) -> None:
    start, kind = 8, b""
    while kind != b"IEND":
        length, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        end = start + 8 + length
        if end + 4 > len(data):
            raise DamagedImageError("cut short: a PNG file ends with a chunk IEND")
        if zlib.crc32(data[start + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise DamagedImageError(f"the checksum of the chunk {kind!r} at byte {start} is wrong")
        start = end + 4


def _size(data: bytes) -> tuple[int, int]:
    try:
        with Image.open(
            io.BytesIO(data), formats=list(SUFFIXES)
        ) as image:  # reads the header alone
            return image.size
    except (
        UnidentifiedImageError
    ) as error:  # its message tells an address in memory, another in every run
        raise DamagedImageError("not an image of a known format") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise HugeImageError(f"over the limit of {MAX_PIXELS:,} pixels ({error})") from error


def _refuse_huge(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise HugeImageError(f"{width}x{height} px is over the limit of {MAX_PIXELS:,} pixels")


def _agrees(preprocessing: Preprocessing) -> bool:
    """Whether both decoders give the same pixels here; they do where Pillow, too, is built on libjpeg-turbo."""
    levels = np.random.default_rng(0).integers(0, 256, (45, 37, 3), dtype=np.uint8)
    for subsampling in ("4:2:0", "4:4:4"):
        stream = io.BytesIO()
        Image.fromarray(levels).save(stream, "JPEG", quality=80, subsampling=subsampling)
        decoded = simplejpeg.decode_jpeg(stream.getvalue(), "RGB")
        if not np.array_equal(decoded, np.asarray(preprocessing.decode(stream.getvalue()))):
            return False
    return True
