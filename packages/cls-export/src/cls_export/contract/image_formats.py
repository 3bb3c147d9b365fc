"""Image formats that training and serving accept, and what other files are called in messages."""

import re
from typing import Final

SUFFIXES: Final = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Accepted formats, by Pillow's name, and the file name suffixes of each.

Pillow decodes these in every build, to the same pixels. AVIF, JPEG 2000, and HEIC depend on
libraries that a build may lack and whose color conversion differs between versions, so the deployed
model could see other pixels than training did.
"""

IMAGE_SUFFIXES: Final = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
"""Every accepted file name suffix, in lower case."""

_MAGIC: Final = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "TIFF": re.compile(rb"II\*\0|MM\0\*|II\+\0|MM\0\+"),  # with +: BigTIFF
    # Without P1 to P3, levels as text: one that is cut within its last number looks complete.
    "PPM": re.compile(rb"P[456]\s"),
}

_OTHER_FORMATS: Final = {
    "an AVIF image": re.compile(rb"....ftypavi[fs]", re.DOTALL),
    "a HEIC image": re.compile(rb"....ftyp(?:hei|hev|mif1|msf1)", re.DOTALL),
    "a video": re.compile(rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ", re.DOTALL),
    "a JPEG 2000 image": re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    "a JPEG XL image": re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"),
    "a PPM image with levels as text": re.compile(rb"P[123]\s"),
    "a PostScript file": re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"),
    "a PDF file": re.compile(rb"%PDF"),
    "a Photoshop file": re.compile(rb"8BPS"),
    "an icon": re.compile(rb"\0\0[\1\2]\0"),
    "an SVG or XML file": re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml|svg)", re.IGNORECASE),
    "an HTML page": re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype|html)", re.IGNORECASE),
    "a Git LFS pointer": re.compile(rb"version https://git-lfs"),
    "a ZIP archive": re.compile(rb"PK\x03\x04"),
}
"""Files that are often taken for images, by the words for a message."""

_FIXES: Final = {
    "a Git LFS pointer": "download the file with `git lfs pull`",
    "an HTML page": "download the file again",
}


def image_format(data: bytes) -> str | None:
    """Return the format that the first bytes identify, a key of `SUFFIXES`, or None."""
    for name, magic in _MAGIC.items():
        if magic.match(data):
            return name
    return None


def describe_unknown_format(data: bytes) -> str:
    """Return what a file is for which `image_format` returns None, and what to do about it."""
    if not data:
        return "empty; copy or download the file again"
    if data.count(0) == len(data):
        return "only zero bytes; copy or download the file again"
    accepted = ", ".join(SUFFIXES)
    for name, magic in _OTHER_FORMATS.items():
        if magic.match(data):
            fix = _FIXES.get(name, "convert it to PNG or JPEG")
            return f"{name}, in none of the accepted formats: {accepted}; {fix}"
    return f"{len(data)} bytes in none of the accepted formats: {accepted}"
