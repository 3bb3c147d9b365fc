"""Image formats and the size limit that training and serving accept."""

import re
from typing import Final

MAX_PIXELS = 50_000_000
"""Images with more pixels are rejected from the header, before decoding: a 17 kB PNG can declare
144 million."""

SUFFIXES: Final = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Accepted formats, by Pillow's name, and the file name suffixes of each."""

IMAGE_SUFFIXES: Final = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
"""Every accepted file name suffix, in lower case."""

_MAGIC: Final = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "TIFF": re.compile(rb"II\*\0|MM\0\*|II\+\0|MM\0\+"),  # with +: BigTIFF
    "PPM": re.compile(rb"P[1-6]\s"),
}


def image_format(data: bytes) -> str | None:
    """Return the format that the first bytes identify, a key of `SUFFIXES`, or None."""
    for name, magic in _MAGIC.items():
        if magic.match(data):
            return name
    return None
