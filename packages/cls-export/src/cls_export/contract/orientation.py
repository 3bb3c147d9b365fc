"""Orientation of images, read from EXIF or XMP metadata.

Only the orientation is read, so that other entries, whatever they contain, cannot make an image
unreadable. See the Orientation tag of TIFF 6.0 and of the EXIF standard (CIPA DC-008).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, Self

from PIL import Image

ORIENTATION_TAG: Final = 0x0112

_EXIF_PREFIX = b"Exif\0\0"

_INTEGER_LENGTHS: Final = {1: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4}
"""Bytes of the integer types. A valid orientation is the same signed and unsigned."""

_XMP_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\b")

_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class TiffDirectory:
    """The first image file directory of TIFF data, such as an EXIF block.

    Attributes:
        order: Byte order.
        is_big: Whether it is BigTIFF, with fields of 8 bytes instead of 4 (and a count of 8
            instead of 2).
        start: Position of the directory.
        entries: Its entries, 12 or 20 bytes each, without those beyond the end of the data.
    """

    order: Literal["little", "big"]
    is_big: bool
    start: int
    entries: tuple[bytes, ...]

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """Read the directory; return None if the data has none."""
        if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return None
        order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
        is_big = b"+" in data[:4]

        start = int.from_bytes(data[8:16] if is_big else data[4:8], order)
        count_length, entry_length = (8, 20) if is_big else (2, 12)
        first = start + count_length
        count = int.from_bytes(data[start:first], order)

        complete = max(0, len(data) - first) // entry_length
        entries = []
        for number in range(min(count, complete)):
            position = first + number * entry_length
            entries.append(data[position : position + entry_length])
        return cls(order, is_big, start, tuple(entries))

    def tag(self, entry: bytes) -> int:
        """Return the tag of an entry."""
        return int.from_bytes(entry[:2], self.order)

    def read_integer(self, entry: bytes) -> int | None:
        """Return the value of an entry that is a single unsigned integer, or None."""
        length = _INTEGER_LENGTHS.get(int.from_bytes(entry[2:4], self.order))
        count_end = 12 if self.is_big else 8
        count = int.from_bytes(entry[4:count_end], self.order)
        if length is None or count != 1:
            return None
        return int.from_bytes(entry[count_end : count_end + length], self.order)

    def orientation(self) -> int | None:
        """Return the last valid orientation, 1 to 8, or None."""
        orientation = None
        for entry in self.entries:
            if self.tag(entry) == ORIENTATION_TAG:
                value = self.read_integer(entry)
                if value is not None and 1 <= value <= 8:
                    orientation = value
        return orientation


def choose_orientation(exif_blocks: Iterable[bytes], xmp_blocks: Iterable[bytes] = ()) -> int:
    """Return the first valid orientation in some metadata, 1 to 8; 1 if there is none."""
    for exif in exif_blocks:
        orientation = read_exif_orientation(exif)
        if orientation is not None:
            return orientation

    for xmp in xmp_blocks:
        match = _XMP_ORIENTATION.search(xmp)
        if match is not None:
            return int(match[1])
    return 1


def read_exif_orientation(exif: bytes) -> int | None:
    """Return the orientation in an EXIF block, 1 to 8, or None. Damage elsewhere is ignored."""
    while exif.startswith(_EXIF_PREFIX):  # JPEG files have the prefix once, others should not
        exif = exif[len(_EXIF_PREFIX) :]
    directory = TiffDirectory.read(exif)
    return None if directory is None else directory.orientation()


def apply_orientation(image: Image.Image, orientation: int) -> Image.Image:
    """Rotate or flip an image so that it is upright."""
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)
