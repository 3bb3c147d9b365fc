"""Rows B5 and B11: gate, store, and runtime see the same pixels, whatever surrounds them."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cls_data import ImageStore, check
from cls_data.images.strict_decoding import DamagedImageError, StrictDecoder
from cls_export.contract.errors import ImageError
from cls_export.contract.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(size=(9, 7), mean=(0, 0, 0), std=(1, 1, 1))
STRICT = StrictDecoder(PREPROCESSING)

Embed = Callable[[bytes], bytes]


def photo() -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8))
    return coarse.resize((20, 30), Image.Resampling.BICUBIC)


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    (image or photo()).save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def in_jpeg(exif: bytes) -> bytes:
    content = b"Exif\0\0" + exif
    segment = b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
    return encoded("JPEG")[:2] + segment + encoded("JPEG")[2:]


def in_png(exif: bytes) -> bytes:
    data = encoded("PNG")
    return data[:33] + png_chunk(b"eXIf", exif) + data[33:]


def in_png_profile(exif: bytes) -> bytes:
    data = encoded("PNG")
    text = f"\nexif\n{len(exif):8}\n{exif.hex()}\n".encode()
    content = b"Raw profile type exif\0\0" + zlib.compress(text)
    return data[:33] + png_chunk(b"zTXt", content) + data[33:]


def in_webp(exif: bytes) -> bytes:
    return encoded("WEBP", lossless=True, exif=exif or b"\0")


def in_tiff(exif: bytes) -> bytes:
    """Append a directory with the image's own entries and those of the EXIF block."""
    data = encoded("TIFF")
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    own = data[start + 2 : start + 2 + 12 * count]
    added = exif[10 : 10 + (len(exif) - 10) // 12 * 12] if exif.startswith(b"II") else b""
    total = (len(own) + len(added)) // 12
    directory = struct.pack("<H", total) + own + added + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


EMBED: dict[str, Embed] = {
    "JPEG": in_jpeg,
    "PNG": in_png,
    "PNG with an ImageMagick profile": in_png_profile,
    "WebP": in_webp,
    "TIFF": in_tiff,
}

PLAIN = {name: np.asarray(PREPROCESSING.decode(embed(b""))) for name, embed in EMBED.items()}


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply the definition: rows and columns of the stored image are these sides of the scene."""
    turned = {
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: pixels.swapaxes(0, 1)[:, ::-1],
        7: pixels[::-1, ::-1].swapaxes(0, 1),
        8: pixels.swapaxes(0, 1)[::-1],
    }
    return turned.get(orientation, pixels)


def pixels_of_all_paths(data: bytes) -> np.ndarray:
    """Return the pixels of the runtime, and check that gate and store decode the same."""
    runtime = np.asarray(PREPROCESSING.decode(data))
    assert np.array_equal(np.asarray(STRICT(data)), runtime)
    return runtime


def entry(tag: int, kind: int, count: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}HHI", tag, kind, count) + value[:4].ljust(4, b"\0")


def exif_block(*entries: bytes, order: str = "<", count: int | None = None) -> bytes:
    header = b"II*\0" if order == "<" else b"MM\0*"
    number = len(entries) if count is None else count
    return header + struct.pack(f"{order}IH", 8, number) + b"".join(entries)


def orientation_entry(value: int, order: str = "<") -> bytes:
    return entry(0x0112, 3, 1, struct.pack(f"{order}H", value), order)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", EMBED)
def test_every_orientation_is_applied(name: str, orientation: int) -> None:
    exif = exif_block(orientation_entry(orientation)) + bytes(4)
    pixels = pixels_of_all_paths(EMBED[name](exif))
    assert np.array_equal(pixels, upright(PLAIN[name], orientation))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4, 6, 8, 9])
def test_integers_of_every_type_are_read(order: str, kind: int) -> None:
    value = struct.pack(order + {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}[kind], 6)
    exif = exif_block(entry(0x0112, kind, 1, value, order), order=order)
    assert np.array_equal(pixels_of_all_paths(in_jpeg(exif)), upright(PLAIN["JPEG"], 6))


MALFORMED = {
    "offset beyond the end": entry(0x010F, 2, 40, b"\xff\xff\xff\x7f"),
    "offset into the header": entry(0x010F, 2, 40, b"\x01\0\0\0"),
    "huge count": entry(0x829A, 5, 2**32 - 1, b"\x1a\0\0\0"),
    "unknown type": entry(0x0110, 999, 1, b"abcd"),
    "number as text": entry(0x011A, 2, 4, b"x\0\0\0"),
    "division by zero": entry(0x011A, 5, 1, b"\x08\0\0\0"),
    "directory that contains itself": entry(0x8769, 4, 1, b"\x08\0\0\0"),
    "GPS beyond the end": entry(0x8825, 4, 1, b"\xf0\xff\xff\xff"),
    "no values": entry(0x0131, 2, 0, b""),
}


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("malformed", MALFORMED)
@pytest.mark.parametrize("name", EMBED)
def test_malformed_entries_beside_the_orientation_are_ignored(
    name: str, malformed: str, is_first: bool
) -> None:
    entries = [MALFORMED[malformed], orientation_entry(6)]
    exif = exif_block(*(entries if is_first else entries[::-1]))
    pixels = pixels_of_all_paths(EMBED[name](exif))
    assert np.array_equal(pixels, upright(PLAIN[name], 6))


@pytest.mark.parametrize("name", EMBED)
@pytest.mark.parametrize(
    "invalid",
    [
        orientation_entry(0),
        orientation_entry(9),
        orientation_entry(65535),
        entry(0x0112, 2, 2, b"6\0"),
        entry(0x0112, 5, 1, b"\xff\xff\xff\x7f"),
        entry(0x0112, 3, 0, b"\x06\0"),
        entry(0x0112, 3, 2**31, b"\x06\0"),
        entry(0x0112, 0, 1, b"\x06\0"),
    ],
)
def test_an_invalid_orientation_leaves_the_image_as_stored(name: str, invalid: bytes) -> None:
    pixels = pixels_of_all_paths(EMBED[name](exif_block(invalid)))
    assert np.array_equal(pixels, PLAIN[name])


@pytest.mark.parametrize(("values", "expected"), [((6, 3), 3), ((6, 0), 6), ((9, 8), 8)])
def test_the_last_valid_orientation_counts(values: tuple[int, int], expected: int) -> None:
    exif = exif_block(*map(orientation_entry, values))
    assert np.array_equal(pixels_of_all_paths(in_jpeg(exif)), upright(PLAIN["JPEG"], expected))


def test_an_orientation_before_the_end_of_truncated_metadata_is_read() -> None:
    exif = exif_block(orientation_entry(6), count=500)
    assert np.array_equal(pixels_of_all_paths(in_jpeg(exif)), upright(PLAIN["JPEG"], 6))


_ENTRIES = st.builds(
    entry,
    st.sampled_from([0x0112, 0x010F, 0x011A, 0x8769, 0x8825, 0x02BC, 0x8773, 0x0201])
    | st.integers(0x8000, 0xBC00),
    st.integers(0, 14),
    st.sampled_from([0, 1, 2, 5]) | st.integers(0, 2**32 - 1),
    st.binary(max_size=4),
)
_BLOCKS = (
    st.binary(max_size=300)
    | st.builds(lambda entries: exif_block(*entries), st.lists(_ENTRIES, max_size=6))
    | st.builds(
        lambda entries, count, rest: exif_block(*entries, count=count) + rest,
        st.lists(_ENTRIES, max_size=6),
        st.integers(0, 65535),
        st.binary(max_size=60),
    )
)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "PNG with an ImageMagick profile", "WebP"])
@given(exif=_BLOCKS)
@settings(max_examples=60, deadline=None)
def test_any_metadata_gives_the_same_upright_pixels_on_all_paths(name: str, exif: bytes) -> None:
    pixels = pixels_of_all_paths(EMBED[name](exif))
    candidates = [upright(PLAIN[name], orientation) for orientation in range(1, 9)]
    assert any(np.array_equal(pixels, candidate) for candidate in candidates)


@given(exif=st.builds(lambda entries: exif_block(*entries), st.lists(_ENTRIES, max_size=6)))
@settings(max_examples=60, deadline=None)
def test_any_entries_of_a_tiff_give_the_same_upright_pixels_on_all_paths(exif: bytes) -> None:
    # 0x0201 and 0x02BC and others beside the image's own entries; none of them is needed.
    tags = [exif[10 + 12 * number :][:2] for number in range((len(exif) - 10) // 12)]
    if b"\x01\x02" in tags:  # the offset of an old-style JPEG stream, which is pixels
        return
    pixels = pixels_of_all_paths(in_tiff(exif))
    candidates = [upright(PLAIN["TIFF"], orientation) for orientation in range(1, 9)]
    assert any(np.array_equal(pixels, candidate) for candidate in candidates)


DAMAGED_METADATA = {
    "PNG color profile": (b"iCCP", b"x\0\0not compressed"),
    "PNG text of 3 MB": (b"zTXt", b"workflow\0\0" + zlib.compress(bytes(3_000_000))),
    "PNG international text": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0not compressed"),
    "PNG resolution": (b"pHYs", b"\0"),
    "PNG gamma": (b"gAMA", b""),
    "PNG chromaticities": (b"cHRM", b"\0\0\0"),
    "PNG transparency": (b"tRNS", b"\0"),
    "PNG animation": (b"acTL", b"\0\0"),
    "PNG with an unknown chunk": (b"abCd", b"anything"),
}


@pytest.mark.parametrize("name", DAMAGED_METADATA)
def test_damaged_metadata_of_a_png_is_ignored(name: str) -> None:
    data = encoded("PNG")
    data = data[:33] + png_chunk(*DAMAGED_METADATA[name]) + data[33:]
    assert np.array_equal(pixels_of_all_paths(data), PLAIN["PNG"])


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xED, 0xEF, 0xFE])
@pytest.mark.parametrize("content", [b"", b"MPF\0II*\0\xff", b"ICC_PROFILE\0\x01\x09", b"Exif\0\0"])
def test_damaged_metadata_of_a_jpeg_is_ignored(marker: int, content: bytes) -> None:
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
    data = encoded("JPEG")
    assert np.array_equal(pixels_of_all_paths(data[:2] + segment + data[2:]), PLAIN["JPEG"])


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_exif_comes_before_xmp(kind: str) -> None:
    exif = b"Exif\0\0" + exif_block(orientation_entry(3))
    options = {"lossless": True} if kind == "WEBP" else {}
    stored = np.asarray(PREPROCESSING.decode(encoded(kind, **options)))
    both = encoded(kind, exif=exif, xmp=XMP, **options)
    only_xmp = encoded(kind, xmp=XMP, **options)
    assert np.array_equal(pixels_of_all_paths(both), upright(stored, 3))
    assert np.array_equal(pixels_of_all_paths(only_xmp), upright(stored, 6))


def test_decoding_a_decoded_image_does_not_turn_it_again() -> None:
    for embed in EMBED.values():
        data = embed(exif_block(orientation_entry(6)))
        once = PREPROCESSING.decode(data)
        assert np.array_equal(np.asarray(PREPROCESSING.decode(once)), np.asarray(once))


COMPLETE = {
    "JPEG": encoded("JPEG"),
    "progressive JPEG": encoded("JPEG", progressive=True),
    "PNG": encoded("PNG"),
    "GIF": encoded("GIF"),
    "animated GIF": encoded("GIF", save_all=True, append_images=[photo().rotate(180)]),
    "BMP": encoded("BMP"),
    "WebP": encoded("WEBP"),
    "lossless WebP": encoded("WEBP", lossless=True),
    "TIFF": encoded("TIFF"),
    "TIFF with LZW": encoded("TIFF", compression="tiff_lzw"),
    "PPM": encoded("PPM"),
    "16-bit PGM": encoded("PPM", Image.fromarray(np.arange(600, dtype=np.uint16).reshape(30, 20))),
}

TRAILING = {
    "a zero": b"\0",
    "zero padding": bytes(5000),
    "line break": b"\r\n",
    "text": b"--boundary--",
    "another JPEG": encoded("JPEG"),
    "another GIF": encoded("GIF"),
    "a video": b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 20,
    "markers": b"\xff\xd8\xff\xe1\xff\xff;;\x21\xfe",
}


@pytest.mark.parametrize("trailing", TRAILING)
@pytest.mark.parametrize("name", COMPLETE)
def test_bytes_after_the_image_are_ignored(name: str, trailing: str) -> None:
    expected = np.asarray(PREPROCESSING.decode(COMPLETE[name]))
    pixels = pixels_of_all_paths(COMPLETE[name] + TRAILING[trailing])
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("name", COMPLETE)
@given(rest=st.binary(max_size=200))
@settings(max_examples=15, deadline=None)
def test_any_bytes_after_the_image_are_ignored(name: str, rest: bytes) -> None:
    expected = np.asarray(PREPROCESSING.decode(COMPLETE[name]))
    assert np.array_equal(pixels_of_all_paths(COMPLETE[name] + rest), expected)


def test_a_jpeg_with_previews_is_decoded_once() -> None:
    previews = encoded("MPO", save_all=True, append_images=[photo().rotate(180)])
    assert previews.startswith(b"\xff\xd8")
    first = np.asarray(Image.open(io.BytesIO(previews)).convert("RGB"))
    assert np.array_equal(pixels_of_all_paths(previews), first)


def test_extra_zeros_between_gif_blocks_are_ignored() -> None:
    data = encoded("GIF")
    padded = data[:-1] + b"\0\0" + data[-1:]
    assert np.array_equal(pixels_of_all_paths(padded), np.asarray(PREPROCESSING.decode(data)))


def test_a_webp_chunk_of_odd_length_without_padding_at_the_end_is_accepted() -> None:
    # Some encoders leave out the padding of the last chunk.
    exif = b"Exif\0\0" + exif_block(orientation_entry(6)) + b"\0"
    assert len(exif) % 2
    data = encoded("WEBP", lossless=True, exif=exif)
    cut = data[:4] + struct.pack("<I", len(data) - 9) + data[8:-1]
    for content in (data, cut):
        assert np.array_equal(pixels_of_all_paths(content), upright(PLAIN["WebP"], 6))


@pytest.mark.parametrize("name", COMPLETE)
def test_a_cut_image_is_refused_by_gate_and_runtime_or_complete(name: str) -> None:
    data = COMPLETE[name]
    expected = np.asarray(PREPROCESSING.decode(data))
    for length in range(0, len(data), 7):
        for decode in (PREPROCESSING.decode, STRICT):
            try:
                pixels = np.asarray(decode(data[:length]))
            except (ImageError, DamagedImageError):
                continue
            assert np.array_equal(pixels, expected), length


def test_gate_and_store_accept_what_the_runtime_accepts(tmp_path: Path) -> None:
    exif = exif_block(MALFORMED["offset beyond the end"], orientation_entry(6))
    files = {f"{number}.jpg": embed(exif) for number, embed in enumerate(EMBED.values())}
    files |= {f"t{number}.jpg": data + bytes(9) for number, data in enumerate(COMPLETE.values())}
    folder = tmp_path / "train"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    rows = [json.dumps({"image": name, "suffix": "1"}) + "\n" for name in files]
    (folder / "rows.jsonl").write_text("".join(rows))

    report = check(tmp_path, PREPROCESSING)
    assert "damaged_images" not in report.findings
    store = ImageStore.build([row.record for row in report.inputs.rows], PREPROCESSING)
    for row, stored in zip(report.inputs.rows, store.pixels.numpy(), strict=True):
        expected = PREPROCESSING.load_pixels(row.record.path)
        assert np.array_equal(stored.transpose(1, 2, 0), expected), row.record.id
