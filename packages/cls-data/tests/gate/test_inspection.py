import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cls_data.gate.inspection import Inspection


def inspected(*contents: bytes, folder: Path, preprocessing: Any, workers: int = 1) -> Inspection:
    paths = [folder / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return Inspection.of(paths, preprocessing, workers=workers)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_facts_of_an_image_are_what_their_definitions_say(
    tmp_path: Path, preprocessing: Any, picture: Any
) -> None:
    # Sides that places of the hash and of the thumbnail divide, so that their means need no weights.
    image = picture(3, (36, 24))
    found = inspected(encoded(image), folder=tmp_path, preprocessing=preprocessing)
    gray = np.asarray(image.convert("L"), np.float64)
    assert found.sizes.tolist() == [[36, 24]]
    assert found.luma[0] == pytest.approx(gray.mean(), rel=1e-4)
    beside = gray[1:-1, :-2] + gray[1:-1, 2:] + gray[:-2, 1:-1] + gray[2:, 1:-1]
    assert found.sharpness[0] == pytest.approx((beside - 4 * gray[1:-1, 1:-1]).var(), rel=1e-4)
    places = np.floor(gray.reshape(8, 3, 9, 4).mean(axis=(1, 3)) + 0.5)
    bits = np.unpackbits(found.hashes[:1].view(np.uint8)).reshape(8, 8)
    assert np.array_equal(bits, places[:, :-1] > places[:, 1:])
    thumbnail = gray.reshape(12, 2, 12, 3).mean(axis=(1, 3))
    assert np.abs(found.thumbnails[0].reshape(12, 12) - thumbnail).max() <= 0.5


def test_pixel_digests_are_equal_exactly_when_pixels_are(
    tmp_path: Path, preprocessing: Any, picture: Any
) -> None:
    image = picture(0)
    other = image.copy()
    other.putpixel((0, 0), (1, 2, 3))
    wide, high = Image.new("RGB", (6, 4), "red"), Image.new("RGB", (4, 6), "red")
    found = inspected(
        *(encoded(each) for each in (image, other, wide, high)),
        *(encoded(image, kind) for kind in ("BMP", "TIFF")),
        folder=tmp_path,
        preprocessing=preprocessing,
    )
    digests = found.pixel_digests
    assert digests[0] == digests[4] == digests[5]
    assert len(set(digests)) == 4
    assert len(set(found.file_digests)) == 6
    assert found.formats == ["PNG", "PNG", "PNG", "PNG", "BMP", "TIFF"]


def test_a_file_that_cannot_be_decoded_says_why(
    tmp_path: Path, preprocessing: Any, picture: Any
) -> None:
    whole = encoded(picture(0))
    contents = (whole, whole[:-5], b"", b"text", whole)
    paths = [tmp_path / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    paths += [tmp_path / "gone", tmp_path]
    found = Inspection.of(paths, preprocessing, workers=2)
    assert {place: kind for place, (kind, _) in found.problems.items()} == {
        1: "damaged",
        2: "damaged",
        3: "damaged",
        5: "unreadable",
        6: "unreadable",
    }
    assert (
        found.problems[1][1]
        == f"{len(whole) - 5} bytes: cut short: a PNG file ends with a chunk IEND"
    )
    assert found.problems[5][1] == "cannot be read (No such file or directory)"
    assert found.file_digests[2] == found.file_digests[5] == hashlib.sha256().digest()
    assert found.sizes[[1, 2, 3, 5, 6]].sum() == 0
    assert found.pixel_digests[0] == found.pixel_digests[4]


def test_no_files_are_no_facts(preprocessing: Any) -> None:
    found = Inspection.of([], preprocessing, workers=2)
    assert len(found) == 0
    assert found.thumbnails.shape == (0, 144)


def test_facts_are_in_order_whoever_finds_them(tmp_path: Path, preprocessing: Any) -> None:
    contents = [
        encoded(Image.new("RGB", (1 + number % 50, 1 + number // 50), (number % 256, 0, 0)))
        for number in range(600)
    ]
    contents[300] = b"damaged"
    one, two = (
        inspected(*contents, folder=tmp_path, preprocessing=preprocessing, workers=count)
        for count in (1, 2)
    )
    assert one.sizes[[7, 599]].tolist() == [[8, 1], [50, 12]]
    assert list(one.problems) == [300]
    for name in ("problems", "formats", "file_digests", "pixel_digests"):
        assert getattr(one, name) == getattr(two, name)
    for name in ("sizes", "luma", "sharpness", "hashes", "thumbnails"):
        assert np.array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (10_000, 1), (1, 10_000), (900, 700)])
def test_images_of_any_size_have_facts(
    tmp_path: Path, preprocessing: Any, size: tuple[int, int]
) -> None:
    found = inspected(
        encoded(Image.new("RGB", size, "white")), folder=tmp_path, preprocessing=preprocessing
    )
    assert tuple(found.sizes[0]) == size
    assert (found.luma[0], found.sharpness[0]) == (255, 0)
