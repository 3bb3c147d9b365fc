import contextlib
import io
import os
import random
import resource
import struct
import threading
import zlib
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cls_data.images.strict_decoding import (
    DamagedImageError,
    StrictDecoder,
    suppress_pillow_warnings,
)
from cls_export.contract.errors import ImageTooLargeError
from cls_export.contract.image_formats import SUFFIXES, image_format
from cls_export.contract.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def decode() -> StrictDecoder:
    return StrictDecoder(Preprocessing(size=(64, 64), mean=(0, 0, 0), std=(1, 1, 1)))


def encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def crop(width: int = 21, height: int = 34, seed: int = 0) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize(
        (width, height), Image.Resampling.BICUBIC, (0, 0, width / 3, height / 3)
    )


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def gray16() -> Image.Image:
    return Image.fromarray(np.asarray(crop().convert("L")).astype(np.uint16) * 257)


def bomb(side: int) -> bytes:
    """Return a black PNG with correct checksums."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    pixels = zlib.compress(bytes((side // 8 + 1) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'

FILES = {
    "JPEG 4:2:0": encoded(crop(), "JPEG", subsampling=2),
    "JPEG 4:2:2": encoded(crop(), "JPEG", subsampling=1),
    "JPEG 4:4:4": encoded(crop(), "JPEG", subsampling=0),
    "JPEG 4:4:0": simplejpeg.encode_jpeg(np.asarray(crop()), colorsubsampling="440"),
    "JPEG 4:1:1": simplejpeg.encode_jpeg(np.asarray(crop()), colorsubsampling="411"),
    "RGB JPEG": encoded(crop(), "JPEG", keep_rgb=True),
    "JPEG of one color": encoded(crop().convert("L"), "JPEG"),
    "progressive JPEG": encoded(crop(), "JPEG", progressive=True),
    "JPEG with restarts": encoded(crop(), "JPEG", restart_marker_blocks=1),
    "CMYK JPEG": encoded(crop().convert("CMYK"), "JPEG"),
    "CMYK JPEG 4:2:0": encoded(crop().convert("CMYK"), "JPEG", subsampling=2),
    "EXIF-turned JPEG": encoded(crop(), "JPEG", exif=turned(6)),
    "XMP-turned JPEG": encoded(crop(), "JPEG", xmp=XMP),
    "RGB PNG": encoded(crop(), "PNG"),
    "RGBA PNG": encoded(crop().convert("RGBA"), "PNG"),
    "palette PNG with alpha": encoded(
        crop().quantize(16), "PNG", transparency=bytes(range(0, 160, 10))
    ),
    "16-bit PNG": encoded(gray16(), "PNG"),
    "PNG of one bit": encoded(crop().convert("1"), "PNG"),
    "GIF": encoded(crop(), "GIF"),
    "GIF of two frames": encoded(crop(), "GIF", save_all=True, append_images=[crop(seed=1)]),
    "BMP": encoded(crop(), "BMP"),
    "lossy WebP": encoded(crop(), "WEBP"),
    "lossless WebP with alpha": encoded(crop().convert("RGBA"), "WEBP", lossless=True),
    "TIFF": encoded(crop(), "TIFF"),
    "TIFF with LZW": encoded(crop(), "TIFF", compression="tiff_lzw"),
    "TIFF with JPEG": encoded(crop(), "TIFF", compression="jpeg"),
    "BigTIFF": encoded(crop(), "TIFF", big_tiff=True),
    "PPM": encoded(crop(), "PPM"),
    "gray PPM": encoded(crop().convert("L"), "PPM"),
    "16-bit PPM": encoded(gray16(), "PPM"),
    "PPM of one bit": encoded(crop().convert("1"), "PPM"),
}


@pytest.mark.parametrize("name", FILES)
def test_strict_decoder_gives_the_pixels_of_the_preprocessing(
    decode: StrictDecoder, name: str
) -> None:
    expected = Preprocessing(size=(64, 64), mean=(0, 0, 0), std=(1, 1, 1)).decode(FILES[name])
    image = decode(FILES[name])
    assert image.mode == "RGB"
    assert image.size == expected.size == ((34, 21) if "turned" in name else (21, 34))
    assert image.tobytes() == expected.tobytes()
    assert np.asarray(image).std() > 20


@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    seed=st.integers(0, 99),
    quality=st.integers(1, 100),
    subsampling=st.integers(0, 2),
    progressive=st.booleans(),
    orientation=st.none() | st.integers(0, 9),
)
@settings(max_examples=150, deadline=None)
def test_strict_decoder_gives_the_pixels_of_the_preprocessing_for_any_jpeg(
    decode: StrictDecoder,
    width: int,
    height: int,
    seed: int,
    quality: int,
    subsampling: int,
    progressive: bool,
    orientation: int | None,
) -> None:
    exif = {} if orientation is None else {"exif": turned(orientation)}
    image = crop(width, height, seed)
    data = encoded(
        image, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive, **exif
    )
    assert (
        decode(data).tobytes()
        == Preprocessing(size=(64, 64), mean=(0, 0, 0), std=(1, 1, 1)).decode(data).tobytes()
    )


@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (1, 10_000)])
@pytest.mark.parametrize("kind", list(SUFFIXES))
def test_strict_decoder_handles_extreme_sizes(
    decode: StrictDecoder, kind: str, size: tuple[int, int]
) -> None:
    assert decode(encoded(Image.new("RGB", size, (9, 99, 200)), kind)).size == size


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_rejected_or_has_all_pixels(decode: StrictDecoder, name: str) -> None:
    data, whole = FILES[name], decode(FILES[name]).tobytes()
    lengths = random.Random(name).sample(range(len(data)), 60)
    for length in [*lengths, *range(len(data) - 20, len(data))]:
        try:
            image = decode(data[:length])
        except DamagedImageError:
            continue
        assert image.tobytes() == whole, length


@pytest.mark.parametrize(
    "name",
    [name for name in FILES if not any(kind in name for kind in ("BMP", "TIFF", "WebP", "PPM"))],
)
def test_a_file_with_a_zeroed_tail_is_rejected_or_has_all_pixels(
    decode: StrictDecoder, name: str
) -> None:
    # BMP, TIFF, WebP, and PPM have no checksums, and write zeros for black.
    data, whole = FILES[name], decode(FILES[name]).tobytes()
    starts = random.Random(name).sample(range(len(data)), 60)
    for start in [*starts, *range(len(data) - 20, len(data))]:
        for filler in (b"\0", b"\xff"):
            try:
                image = decode(data[:start] + filler * (len(data) - start))
            except DamagedImageError:
                continue
            assert image.tobytes() == whole, (start, filler)


@pytest.mark.parametrize("name", [name for name in FILES if "PNG" in name])
def test_a_png_with_a_flipped_bit_is_rejected(decode: StrictDecoder, name: str) -> None:
    data = FILES[name]
    for place in random.Random(name).sample(range(len(data)), 100):
        with pytest.raises(DamagedImageError):
            decode(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"not an image", b"\xff\xd8\xff", b"GIF89a", b"BM;", b"\x89PNG\r\n\x1a\n"]
)
def test_bytes_that_are_not_an_image_are_rejected(decode: StrictDecoder, data: bytes) -> None:
    with pytest.raises(DamagedImageError):
        decode(data)


@pytest.mark.parametrize("side", [15_000, 20_000, 30_000])
@pytest.mark.parametrize(
    "quiet", [suppress_pillow_warnings, contextlib.nullcontext]
)  # with Pillow's warning suppressed, and turned into an error
def test_a_decompression_bomb_is_rejected_by_its_header(
    decode: StrictDecoder, side: int, quiet: Any
) -> None:
    data = bomb(side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with quiet(), pytest.raises(ImageTooLargeError, match="over the limit of 200,000,000 pixels"):
        decode(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


def test_a_huge_jpeg_is_rejected_by_its_header(decode: StrictDecoder) -> None:
    data = FILES["JPEG 4:2:0"]
    size = data.index(b"\xff\xc0") + 5
    with pytest.raises(ImageTooLargeError, match="60000x60000 px"):
        decode(data[:size] + struct.pack(">HH", 60_000, 60_000) + data[size + 4 :])


@pytest.mark.parametrize("name", FILES)
def test_image_format_identifies_the_first_bytes(name: str) -> None:
    assert image_format(FILES[name]) in set(SUFFIXES)
    assert str(image_format(FILES[name])) in name.upper()
    assert image_format(FILES[name][1:]) is None


def test_libtiff_messages_are_not_printed(
    decode: StrictDecoder, capfd: pytest.CaptureFixture[str]
) -> None:
    data = FILES["TIFF with LZW"]
    for place in range(8, len(data) // 2, 16):
        with suppress_pillow_warnings(), contextlib.suppress(DamagedImageError):
            decode(data[:place] + b"\xff" * 8 + data[place + 8 :])
    assert capfd.readouterr() == ("", "")


def test_stderr_is_restored_after_threads_decode_tiff_files(
    decode: StrictDecoder, capfd: pytest.CaptureFixture[str]
) -> None:
    threads = [
        threading.Thread(
            target=lambda: [decode(FILES["TIFF with LZW"]) for _ in range(30)], daemon=True
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"


def test_simplejpeg_is_not_used_if_its_pixels_differ() -> None:
    class Darker(Preprocessing):
        def decode(self, source: bytes) -> Image.Image:
            return super().decode(source).point(lambda level: level // 2)

    data = FILES["JPEG 4:2:0"]
    assert (
        StrictDecoder(Darker(size=(64, 64), mean=(0, 0, 0), std=(1, 1, 1)))(data).tobytes()
        == Darker(size=(64, 64), mean=(0, 0, 0), std=(1, 1, 1)).decode(data).tobytes()
    )


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_limit_below_the_size_of_any_image_is_applied(kind: str) -> None:
    strict = StrictDecoder(
        Preprocessing(size=(64, 64), mean=(0, 0, 0), std=(1, 1, 1), max_pixels=713)
    )
    with pytest.raises(ImageTooLargeError, match=r"^21x34 px is over the limit of 713 pixels"):
        strict(encoded(crop(), kind))
    assert strict(encoded(crop(21, 33), kind)).size == (21, 33)
