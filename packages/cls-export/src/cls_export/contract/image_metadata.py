"""Separate the pixels of an image file from its metadata.

Color profiles, text, thumbnails, and EXIF do not change pixels here, but an error in them makes
decoders fail or warn. So decoders get a copy of the file without metadata.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from cls_export.contract.orientation import TiffDirectory, choose_orientation

_MAX_TEXT = 2**20
"""Bytes of a compressed text of a PNG that are decompressed; orientation is near its start."""

_JPEG_METADATA: Final = {0xE1, 0xFE, *range(0xE2, 0xEE), 0xEF}
"""Markers of application data and comments, except for JFIF and Adobe, which state colors."""

_PNG_PIXELS: Final = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}

_WEBP_PIXELS: Final = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}

_WEBP_PIXEL_FLAGS: Final = 0b00010010
"""Alpha and animation; the other flags of VP8X announce metadata."""

_TIFF_PIXELS: Final = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 280, 281, 284),
    *(292, 293, 301, 317, 320, 322, 323, 324, 325, 332, 333, 334, 336, 338, 339, 340, 341, 342),
    *(347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 0xBC01, 50674),
}
"""Tags that libtiff or Pillow need for the pixels."""


class PlainImage(NamedTuple):
    """A file that decodes to the same pixels but has no metadata, and its orientation, 1 to 8."""

    data: bytes
    orientation: int


def separate_metadata(data: bytes, image_format: str) -> PlainImage:
    """Remove the metadata of an image file, of which only the orientation is read.

    Never fails: from the first byte that does not follow the format, the file is left as it is.
    """
    separate = _SEPARATE.get(image_format)
    return PlainImage(data, 1) if separate is None else separate(data)


def read_webp_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in the header of a WebP file; None if it is damaged.

    libwebp allocates the canvas before Pillow tells its size.
    """
    chunk = data[12:16]
    if chunk == b"VP8X" and len(data) >= 30:
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif chunk == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        width = (bits & 0x3FFF) + 1
        height = (bits >> 14 & 0x3FFF) + 1
    elif chunk == b"VP8 " and len(data) >= 30:
        width = int.from_bytes(data[26:28], "little") & 0x3FFF
        height = int.from_bytes(data[28:30], "little") & 0x3FFF
    else:
        return None
    return width, height


def _separate_jpeg(data: bytes) -> PlainImage:
    view = memoryview(data)
    kept = [view[:2]]
    exif: list[bytes] = []
    xmp: list[bytes] = []
    position = 2
    for start, end in _jpeg_segments(data):
        marker = data[start + 1]
        if marker not in _JPEG_METADATA:
            kept.append(view[start:end])
        elif marker == 0xE1:
            content = data[start + 4 : end]
            blocks = exif if content.startswith(b"Exif\0\0") else xmp
            blocks.append(content)
        position = end

    kept.append(view[position:])
    return PlainImage(b"".join(kept), choose_orientation(exif, xmp))


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of the marker segments before the first scan."""
    position = 2
    while data[position : position + 1] == b"\xff":
        while data[position + 1 : position + 2] == b"\xff":  # fill bytes
            position += 1
        marker = data[position + 1 : position + 2]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        end = position + 2 + length
        if marker < b"\xc0" or b"\xd0" <= marker <= b"\xda" or length < 2 or end > len(data):
            return  # a scan, an end, a marker without content, or damage
        yield position, end
        position = end


def _separate_png(data: bytes) -> PlainImage:
    view = memoryview(data)
    kept = [view[:8]]
    exif = []
    profiles = []
    xmp = []
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(view[position : position + 4], "big")
        end = position + 12 + length
        kind = data[position + 4 : position + 8]
        if end > len(data):
            if kind not in _PNG_PIXELS:  # cut short, but the pixels may be complete
                position = len(data)
            break
        if kind in _PNG_PIXELS:
            kept.append(view[position:end])
        elif kind == b"eXIf":
            exif.append(data[position + 8 : end - 4])
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, text = _read_png_text(kind, data[position + 8 : end - 4])
            if keyword in (b"Raw profile type exif", b"Raw profile type APP1"):
                profiles.append(_parse_raw_profile(text))
            elif keyword == b"XML:com.adobe.xmp":
                xmp.append(text)
        position = len(data) if kind == b"IEND" else end

    kept.append(view[position:])
    return PlainImage(b"".join(kept), choose_orientation([*exif, *profiles], xmp))


def _read_png_text(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    """Return the keyword and the text of a chunk, as far as it can be read."""
    keyword, _, text = content.partition(b"\0")
    is_compressed = kind == b"zTXt"
    if kind == b"zTXt":
        text = text[1:]  # the method
    elif kind == b"iTXt":
        is_compressed = text[:1] == b"\1"
        _language, _, rest = text[2:].partition(b"\0")
        _translated, _, text = rest.partition(b"\0")

    if is_compressed:
        try:
            text = zlib.decompressobj().decompress(text, _MAX_TEXT)
        except zlib.error:
            text = b""
    return keyword, text


def _parse_raw_profile(text: bytes) -> bytes:
    """Return the bytes of an ImageMagick profile: name, length, and hexadecimal digits."""
    digits = b"".join(text.split(b"\n")[3:])
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""


def _separate_webp(data: bytes) -> PlainImage:
    """Leave the chunks of the image, and add the padding that some encoders leave out."""
    kept = []
    exif = []
    xmp = []
    has_image = False
    position = 12
    while position + 8 <= len(data):
        kind = data[position : position + 4]
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        start = position + 8
        end = start + length
        if kind in _WEBP_PIXELS and not has_image:
            if end > len(data):
                return PlainImage(data, 1)  # cut short, as the decoder will find
            content = data[start:end]
            if kind == b"VP8X" and content:
                content = bytes([content[0] & _WEBP_PIXEL_FLAGS]) + content[1:]
            kept += [data[position:start], content, b"\0" * (length % 2)]
            has_image = kind in (b"VP8 ", b"VP8L")
        elif kind == b"EXIF":
            exif.append(data[start:end])
        elif kind == b"XMP ":
            xmp.append(data[start:end])
        position = end + length % 2

    chunks = b"".join(kept)
    header = b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WEBP"
    return PlainImage(header + chunks, choose_orientation(exif, xmp))


def _separate_tiff(data: bytes) -> PlainImage:
    """Leave one directory, with the tags for the pixels. So Pillow does not turn the image."""
    directory = TiffDirectory.read(data)
    if directory is None or not directory.entries:
        return PlainImage(data, 1)

    kept = []
    xmp = []
    for entry in directory.entries:
        tag = directory.tag(entry)
        if tag in _TIFF_PIXELS:
            kept.append(entry)
        elif tag == 700:
            xmp.append(_read_tiff_bytes(data, directory, entry))

    # In place: if the file is cut short, it must not get longer.
    count_length, offset_length = (8, 8) if directory.is_big else (2, 4)
    count = len(kept).to_bytes(count_length, directory.order)
    no_next_directory = bytes(offset_length)
    content = b"".join([count, *kept, no_next_directory])
    plain = bytearray(data)
    plain[directory.start : directory.start + len(content)] = content

    orientation = directory.orientation()
    if orientation is None:
        orientation = choose_orientation([], xmp)
    return PlainImage(bytes(plain[: len(data)]), orientation)


def _read_tiff_bytes(data: bytes, directory: TiffDirectory, entry: bytes) -> bytes:
    middle = 12 if directory.is_big else 8
    length = int.from_bytes(entry[4:middle], directory.order)
    start = int.from_bytes(entry[middle:], directory.order)
    return data[start : start + min(length, _MAX_TEXT)]


_SEPARATE: Final[dict[str, Callable[[bytes], PlainImage]]] = {
    "JPEG": _separate_jpeg,
    "PNG": _separate_png,
    "WEBP": _separate_webp,
    "TIFF": _separate_tiff,
}
