"""Rows B6, B10, C3, and C7: which files are decoded, and how large they may be."""

import contextlib
import io
import os
import socket
import stat
import struct
import threading
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from cls_export.contract.decoding import DEFAULT_MAX_PIXELS, decode_image, read_image_file
from cls_export.contract.errors import ImageError, ImageTooLargeError
from cls_export.contract.image_formats import IMAGE_SUFFIXES, SUFFIXES, image_format
from cls_export.contract.preprocessing import Preprocessing

posix = pytest.mark.skipif(os.name == "nt", reason="needs files and programs of POSIX systems")

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 30\n%%EndComments\nshowpage\n%%EOF\n"


def photo(width: int = 20, height: int = 30) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    (image or photo()).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", SUFFIXES)
def test_every_accepted_format_is_decoded_from_every_suffix(tmp_path: Path, kind: str) -> None:
    data = encoded(kind)
    assert image_format(data) == kind
    for suffix in SUFFIXES[kind]:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(data)
        assert decode_image(path).size == (20, 30)
        assert suffix in IMAGE_SUFFIXES


@pytest.mark.parametrize(
    ("mode", "suffix"), [("1", ".pbm"), ("L", ".pgm"), ("RGB", ".ppm"), ("I;16", ".pgm")]
)
def test_ppm_files_of_every_depth_keep_their_levels(mode: str, suffix: str) -> None:
    gray = photo().convert("L")
    levels = np.asarray(gray)
    sources = {
        "1": gray.convert("1"),
        "L": gray,
        "RGB": photo(),
        "I;16": Image.fromarray(levels.astype(np.uint16) * 257),
    }
    expected = gray if mode == "I;16" else sources[mode]
    decoded = decode_image(encoded("PPM", sources[mode]))
    assert np.array_equal(np.asarray(decoded), np.asarray(expected.convert("RGB")))


UNSUPPORTED = {
    "an AVIF image": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1",
    "a HEIC image": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "a JPEG 2000 image": b"\0\0\0\x0cjP  \r\n\x87\n",
    "a JPEG XL image": b"\xff\x0a\xfa\x1f",
    "a PPM image with levels as text": b"P3\n1 1\n255\n1 2 3\n",
    "a PostScript file": EPS,
    "a PDF file": b"%PDF-1.7\n",
    "a Photoshop file": b"8BPS\0\1",
    "an icon": b"\0\0\1\0\1\0",
    "an SVG or XML file": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    "an HTML page": b"<!DOCTYPE html><html>",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
    "a ZIP archive": b"PK\3\4\x14\0",
    "a video": b"\0\0\0\x18ftypmp42",
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_other_formats_are_named_with_the_list_of_accepted_ones(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(UNSUPPORTED[name])
    expected = f"a.jpg: cannot be decoded \\({name}, in none of the accepted formats: JPEG, PNG, "
    with pytest.raises(ImageError, match=expected):
        decode_image(path)


@pytest.mark.parametrize(("data", "problem"), [(b"", "empty"), (bytes(500), "only zero bytes")])
def test_files_that_lost_their_content_are_named(data: bytes, problem: str) -> None:
    with pytest.raises(ImageError, match=rf"\({problem}; copy or download the file again\)"):
        decode_image(data)


FOREIGN = {
    "EPS": EPS,
    "EPS with a preview": b"\xc5\xd0\xd3\xc6" + (30).to_bytes(4, "little") + bytes(22) + EPS,
    "PS": b"%!PS\n/Times 12 selectfont showpage\n",
    "PDF": b"%PDF-1.4\n%%EOF",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='|id'/></svg>",
    "MSL": b"<?xml version='1.0'?><image><read filename='/etc/passwd'/></image>",
    "MVG": b"push graphic-context\nfill 'url(|id)'\npop graphic-context",
    "EPS after a JPEG's magic": b"\xff\xd8\xff" + EPS,
    "EPS after a BMP's magic": b"BM" + EPS,
    "EPS after a blank": b"\n" + EPS,
}


@pytest.fixture
def started_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put programs on PATH that decoders may start; each leaves a file in the folder returned."""
    programs = tmp_path / "bin"
    record = tmp_path / "started"
    programs.mkdir()
    record.mkdir()
    for name in ("gs", "gswin64c", "djpeg", "ppmtogif", "ppmquant", "convert", "magick"):
        program = programs / name
        program.write_text(f"#!/bin/sh\n: > {record}/{name}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # look for it again
    return record


@posix
@pytest.mark.parametrize("name", FOREIGN)
def test_no_program_is_started_for_bytes_or_paths(
    tmp_path: Path, started_programs: Path, name: str
) -> None:
    path = tmp_path / "crop.jpg"
    path.write_bytes(FOREIGN[name])
    for source in (FOREIGN[name], path, str(path)):
        with pytest.raises(ImageError, match="cannot be decoded"):
            decode_image(source)
    assert not list(started_programs.iterdir())


@posix
def test_no_program_is_started_for_an_image_that_was_opened_lazily(started_programs: Path) -> None:
    with Image.open(io.BytesIO(EPS)) as image:
        with pytest.raises(ImageError, match="the Pillow image: opened from a file in the format "):
            decode_image(image)
        assert not list(started_programs.iterdir())

        # The test can fail: Pillow itself starts it.
        with contextlib.suppress(OSError):
            image.load()
        assert [path.name for path in started_programs.iterdir()] == ["gs"]


def test_a_file_object_is_refused_by_type() -> None:
    with pytest.raises(ImageError, match="got a BytesIO; expected a path, bytes"):
        decode_image(io.BytesIO(encoded("PNG")))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [*SUFFIXES, "MPO"])
def test_lazily_opened_images_of_accepted_formats_are_decoded(kind: str) -> None:
    data = encoded(
        kind, **({"save_all": True, "append_images": [photo()]} if kind == "MPO" else {})
    )
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(decode_image(image))
    assert np.array_equal(pixels, np.asarray(decode_image(data)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_lazily_opened_images_are_turned_like_their_bytes(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(decode_image(image))
    assert np.array_equal(pixels, np.asarray(decode_image(data)))


@pytest.mark.parametrize("size", [(8160, 6144), (12_032, 9_024), (16_320, 12_240)])
def test_photos_of_phones_are_under_the_default_limit(size: tuple[int, int]) -> None:
    assert size[0] * size[1] <= DEFAULT_MAX_PIXELS


@pytest.mark.parametrize("kind", SUFFIXES)
def test_the_limit_counts_pixels_and_is_named(kind: str) -> None:
    data = encoded(kind)
    assert decode_image(data, max_pixels=600).size == (20, 30)
    with pytest.raises(
        ImageTooLargeError, match=r"20x30 px is over the limit of 599 pixels \(preprocessing.max_p"
    ):
        decode_image(data, max_pixels=599)


def test_the_limit_is_a_setting_of_the_preprocessing() -> None:
    settings: Any = {"size": (8, 8), "mean": (0, 0, 0), "std": (1, 1, 1)}
    assert Preprocessing(**settings).max_pixels == DEFAULT_MAX_PIXELS
    strict = Preprocessing(**settings, max_pixels=599)
    with pytest.raises(ImageTooLargeError):
        strict(encoded("PNG"))
    assert strict.pixels_id == Preprocessing(**settings).pixels_id


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM"])
def test_images_over_pillows_own_limit_are_decoded_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # As small stand-ins for images of 89 and 178 million pixels, at which Pillow warns and raises.
    monkeypatch.setattr("cls_export.contract.decoding._PILLOW_LIMIT", 250)
    for limit in (299, 599):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        pixels = np.asarray(decode_image(encoded(kind, lossless=True)))
        assert np.array_equal(pixels[..., 0].shape, (30, 20))
        assert limit == Image.MAX_IMAGE_PIXELS


def test_threads_that_raise_pillows_limit_restore_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cls_export.contract.decoding._PILLOW_LIMIT", 250)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 299)
    data = encoded("TIFF")
    decoded: list[Image.Image] = []
    threads = [
        threading.Thread(target=lambda: decoded.extend(decode_image(data) for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == 200
    assert Image.MAX_IMAGE_PIXELS == 299


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_header_that_claims_too_many_pixels_takes_no_memory(kind: str) -> None:
    data = bytearray(encoded(kind, lossless=True))
    if kind == "PNG":
        data[16:24] = (60_000).to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    elif kind == "WEBP":
        data[21:25] = (0xFFFFFFF).to_bytes(4, "little")
    elif kind == "GIF":
        data[6:10] = (60_000).to_bytes(2, "little") * 2
    elif kind == "BMP":
        data[18:26] = (60_000).to_bytes(4, "little") * 2
    elif kind == "PPM":
        data = data.replace(b"20 30", b"60000 60000")
    elif kind == "TIFF":
        for tag, side in ((256, 20), (257, 30)):
            entry = struct.pack("<HHI", tag, 4, 1)
            data = data.replace(entry + struct.pack("<I", side), entry + struct.pack("<I", 60_000))
    else:
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = (60_000).to_bytes(2, "big") * 2

    tracemalloc.start()
    with pytest.raises(ImageTooLargeError, match="is over the limit of 200,000,000 pixels"):
        decode_image(bytes(data))
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def special_files(folder: Path) -> dict[str, Path]:
    """Return files that cannot be read as an image."""
    files = {name: folder / f"{name}.jpg" for name in ("pipe", "zero", "folder", "huge", "gone")}
    os.mkfifo(files["pipe"])
    files["zero"].symlink_to("/dev/zero")
    files["folder"].mkdir()
    with files["huge"].open("wb") as stream:
        stream.truncate(10**10)  # sparse
    return files


@posix
@pytest.mark.parametrize("name", ["pipe", "zero", "folder", "huge", "gone"])
def test_a_path_that_is_no_image_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    path = special_files(tmp_path)[name]
    tracemalloc.start()
    for read in (decode_image, read_image_file):
        with pytest.raises(ImageError, match=rf"{name}.jpg: cannot be read \("):
            read(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@posix
def test_a_socket_is_an_error_that_names_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "a.jpg"))
        with pytest.raises(ImageError, match=r"a.jpg: cannot be read \("):
            decode_image(tmp_path / "a.jpg")


def test_a_file_may_be_longer_than_its_pixels_by_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    with path.open("r+b") as stream:
        stream.truncate(2400 + 64 * 2**20)
    assert decode_image(path, max_pixels=600).size == (20, 30)
    with path.open("r+b") as stream:
        stream.truncate(2401 + 64 * 2**20)
    with pytest.raises(ImageError, match=r"a.png: cannot be read \(.*larger than"):
        decode_image(path, max_pixels=600)


FIELDS = np.zeros((4, 5), [("r", np.uint8), ("g", np.uint8), ("b", np.uint8)])


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        (np.frombuffer(encoded("PNG"), np.uint8), r"pass array\.tobytes\(\)"),
        (io.BytesIO(encoded("PNG")), r"pass stream\.read\(\)"),
        (FIELDS, r"np\.stack\(\[array\[name\] for name in \('r', 'g', 'b'\)\], axis=-1\)"),
    ],
    ids=["file bytes in an array", "stream", "structured array"],
)
def test_common_containers_of_an_image_get_a_hint(source: Any, hint: str) -> None:
    with pytest.raises(ImageError, match=hint):
        decode_image(source)


def test_hint_for_a_structured_array_gives_an_image() -> None:
    array = np.stack([FIELDS[name] for name in ("r", "g", "b")], axis=-1)
    assert decode_image(array).size == (5, 4)
