import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cls_data.gate.inspection import InspectionResult, inspect_files


def inspect_contents(
    *contents: bytes, folder: Path, preprocessing: Any, workers: int = 1
) -> InspectionResult:
    paths = [folder / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return inspect_files(paths, preprocessing, workers=workers)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_measurements_match_their_definitions(
    tmp_path: Path, preprocessing: Any, picture: Any
) -> None:
    # The sides are multiples of the hash's and thumbnail's: their pixels are plain means.
    image = picture(3, (36, 24))
    result = inspect_contents(encoded(image), folder=tmp_path, preprocessing=preprocessing)
    gray = np.asarray(image.convert("L"), np.float64)
    assert result.sizes.tolist() == [[36, 24]]
    assert result.luma[0] == pytest.approx(gray.mean(), rel=1e-4)
    neighbors = gray[1:-1, :-2] + gray[1:-1, 2:] + gray[:-2, 1:-1] + gray[2:, 1:-1]
    assert result.sharpness[0] == pytest.approx((neighbors - 4 * gray[1:-1, 1:-1]).var(), rel=1e-4)
    pixels = np.floor(gray.reshape(8, 3, 9, 4).mean(axis=(1, 3)) + 0.5)
    bits = np.unpackbits(result.hashes[:1].view(np.uint8)).reshape(8, 8)
    assert np.array_equal(bits, pixels[:, :-1] > pixels[:, 1:])
    thumbnail = gray.reshape(12, 2, 12, 3).mean(axis=(1, 3))
    assert np.abs(result.thumbnails[0].reshape(12, 12) - thumbnail).max() <= 0.5


def test_pixel_digests_are_equal_only_for_equal_pixels(
    tmp_path: Path, preprocessing: Any, picture: Any
) -> None:
    image = picture(0)
    other = image.copy()
    other.putpixel((0, 0), (1, 2, 3))
    wide, high = Image.new("RGB", (6, 4), "red"), Image.new("RGB", (4, 6), "red")
    result = inspect_contents(
        *(encoded(each) for each in (image, other, wide, high)),
        *(encoded(image, kind) for kind in ("BMP", "TIFF")),
        folder=tmp_path,
        preprocessing=preprocessing,
    )
    digests = result.pixel_digests
    assert digests[0] == digests[4] == digests[5]
    assert len(set(digests)) == 4
    assert len(set(result.file_digests)) == 6
    assert result.formats == ["PNG", "PNG", "PNG", "PNG", "BMP", "TIFF"]


def test_problems_explain_files_that_cannot_be_decoded(
    tmp_path: Path, preprocessing: Any, picture: Any
) -> None:
    whole = encoded(picture(0))
    contents = (whole, whole[:-5], b"", b"text", whole)
    paths = [tmp_path / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    paths += [tmp_path / "gone", tmp_path]
    result = inspect_files(paths, preprocessing, workers=2)
    assert {index: problem.kind for index, problem in result.problems.items()} == {
        1: "damaged",
        2: "damaged",
        3: "damaged",
        5: "unreadable",
        6: "unreadable",
    }
    assert (
        result.problems[1].reason
        == "cannot be decoded (cut short: a PNG file ends with an IEND chunk)"
    )
    assert result.problems[5].reason == "cannot be read (No such file or directory)"
    assert result.file_digests[2] == result.file_digests[5] == hashlib.sha256().digest()
    assert result.sizes[[1, 2, 3, 5, 6]].sum() == 0
    assert result.pixel_digests[0] == result.pixel_digests[4]


def test_inspection_of_no_files_is_empty(preprocessing: Any) -> None:
    result = inspect_files([], preprocessing, workers=2)
    assert len(result) == 0
    assert result.thumbnails.shape == (0, 144)


def test_results_keep_the_order_of_files_with_two_workers(
    tmp_path: Path, preprocessing: Any
) -> None:
    contents = [
        encoded(Image.new("RGB", (1 + number % 50, 1 + number // 50), (number % 256, 0, 0)))
        for number in range(600)
    ]
    contents[300] = b"damaged"
    one, two = (
        inspect_contents(*contents, folder=tmp_path, preprocessing=preprocessing, workers=count)
        for count in (1, 2)
    )
    assert one.sizes[[7, 599]].tolist() == [[8, 1], [50, 12]]
    assert list(one.problems) == [300]
    for name in ("problems", "formats", "file_digests", "pixel_digests"):
        assert getattr(one, name) == getattr(two, name)
    for name in ("sizes", "luma", "sharpness", "hashes", "thumbnails"):
        assert np.array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (10_000, 1), (1, 10_000), (900, 700)])
def test_images_of_any_size_are_measured(
    tmp_path: Path, preprocessing: Any, size: tuple[int, int]
) -> None:
    result = inspect_contents(
        encoded(Image.new("RGB", size, "white")), folder=tmp_path, preprocessing=preprocessing
    )
    assert tuple(result.sizes[0]) == size
    assert (result.luma[0], result.sharpness[0]) == (255, 0)
