import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from cls_export import ImageError, Preprocessing
from cls_export.contract.errors import ImageTooLargeError

PLAIN: Any = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def picture(width: int = 20, height: int = 30) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_squash_matches_pillow_resize() -> None:
    preprocessing = Preprocessing(size=(8, 6), resample="bicubic", **PLAIN)
    expected = np.asarray(picture().resize((6, 8), Image.Resampling.BICUBIC))
    assert np.array_equal(preprocessing.load_pixels(encoded(picture())), expected)


@pytest.mark.parametrize(
    ("source", "size", "expected"),
    [
        ((49, 28), (48, 32), "97992d41b9e9ad34"),
        ((40, 29), (24, 24), "196b76"),
        ((40, 29), (224, 224), "d42aba"),
    ],
)
def test_supported_pillow_versions_give_same_pixels(
    source: tuple[int, int], size: tuple[int, int], expected: str
) -> None:
    array = np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8)
    pixels = Preprocessing(size=size, **PLAIN).load_pixels(array)
    assert hashlib.sha256(pixels.tobytes()).hexdigest().startswith(expected)


def test_letterbox_keeps_aspect_ratio_and_fills_border() -> None:
    preprocessing = Preprocessing(size=(30, 30), resize="letterbox", fill=(1, 2, 3), **PLAIN)
    pixels = preprocessing.load_pixels(picture(20, 30))
    assert np.array_equal(pixels[:, 5:25], np.asarray(picture(20, 30)))
    assert np.all(pixels[:, :5] == (1, 2, 3))
    assert np.all(pixels[:, 25:] == (1, 2, 3))


def test_shortest_edge_crops_center() -> None:
    preprocessing = Preprocessing(size=(20, 20), resize="shortest_edge", resize_to=20, **PLAIN)
    assert np.array_equal(
        preprocessing.load_pixels(picture(20, 30)), np.asarray(picture(20, 30))[5:25]
    )


def test_normalize_matches_formula_up_to_rounding() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    result = Preprocessing(size=(16, 16), **PLAIN).normalize(pixels)
    assert result.shape == (1, 3, 16, 16)
    assert result.dtype == np.float32
    mean, std = np.array(PLAIN["mean"]), np.array(PLAIN["std"])
    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert np.abs(result - expected).max() < 1e-6


def test_all_source_types_give_same_input(tmp_path: Path) -> None:
    preprocessing = Preprocessing(size=(9, 9), **PLAIN)
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    sources = [
        encoded(picture()),
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        picture(),
        np.asarray(picture()),
    ]
    first, *others = [preprocessing(source) for source in sources]
    assert first.shape == (1, 3, 9, 9)
    assert all(np.array_equal(first, other) for other in others)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise for display
    upright = Preprocessing(size=(30, 20), **PLAIN).decode(encoded(picture(30, 20), exif=exif))
    assert upright.size == (20, 30)
    assert np.array_equal(np.asarray(upright), np.rot90(np.asarray(picture(30, 20)), -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_common_modes_become_rgb(mode: str) -> None:
    kind = {"CMYK": "TIFF", "YCbCr": "TIFF"}.get(mode, "PNG")
    decoded = Preprocessing(size=(8, 8), **PLAIN).decode(encoded(picture().convert(mode), kind))
    assert (decoded.mode, decoded.size) == ("RGB", (20, 30))


def test_palette_with_transparency_keeps_colors() -> None:
    palette = picture().convert("P")
    decoded = Preprocessing(size=(8, 8), **PLAIN).decode(
        encoded(palette, transparency=bytes(range(256)))
    )
    assert np.array_equal(np.asarray(decoded), np.asarray(palette.convert("RGB")))


def test_16_bit_images_are_scaled_not_clipped() -> None:
    ramp = Image.fromarray(np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16))
    decoded = np.asarray(Preprocessing(size=(8, 8), **PLAIN).decode(encoded(ramp)))
    assert np.array_equal(decoded[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (1, 10_000)])
@pytest.mark.parametrize("resize", ["squash", "letterbox"])
def test_extreme_aspect_ratios_are_accepted(size: tuple[int, int], resize: Any) -> None:
    assert Preprocessing(size=(8, 8), resize=resize, **PLAIN)(picture(*size)).shape == (1, 3, 8, 8)


def test_huge_image_is_refused_before_decoding() -> None:
    bomb = encoded(Image.new("1", (15_000, 15_000)))
    assert len(bomb) < 50_000
    with pytest.raises(ImageTooLargeError, match="15000x15000 px is over the limit of 200,000,000"):
        Preprocessing(size=(8, 8), **PLAIN).decode(bomb)


@given(share=st.floats(0, 0.99))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_truncated_file_is_refused_or_complete(kind: str, share: float) -> None:
    whole = encoded(picture(), kind)
    preprocessing = Preprocessing(size=(8, 8), **PLAIN)
    try:
        pixels = preprocessing.load_pixels(whole[: int(share * len(whole))])
    except ImageError:
        return
    assert np.array_equal(pixels, preprocessing.load_pixels(whole))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="image bytes: cannot be decoded"):
        Preprocessing(size=(8, 8), **PLAIN).decode(data)


def test_formats_that_start_ghostscript_are_refused() -> None:
    data = encoded(picture(), "EPS")
    with pytest.raises(ImageError, match="in none of the accepted formats: JPEG, PNG, GIF"):
        Preprocessing(size=(8, 8), **PLAIN).decode(data)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_array_of_wrong_shape_or_dtype_is_refused(array: Any) -> None:
    with pytest.raises(ImageError, match=r"expected uint8 \[height, width, 3\]"):
        Preprocessing(size=(8, 8), **PLAIN)(array)


def test_lazily_opened_damaged_image_is_refused() -> None:
    cut = encoded(picture(60, 60), "JPEG")[:1000]
    with (
        Image.open(io.BytesIO(cut)) as image,
        pytest.raises(ImageError, match="the Pillow image: cannot be decoded"),
    ):
        Preprocessing(size=(8, 8), **PLAIN).decode(image)


def test_elongated_image_over_pixel_limit_is_refused() -> None:
    preprocessing = Preprocessing(size=(224, 224), resize="shortest_edge", resize_to=256, **PLAIN)
    with pytest.raises(ImageError, match="10000x1 px is too elongated"):
        preprocessing(picture(10_000, 1))


@pytest.mark.parametrize("source", ["a\0b", bytearray(b"x"), None])
def test_invalid_source_raises_image_error(source: Any) -> None:
    with pytest.raises(ImageError):
        Preprocessing(size=(8, 8), **PLAIN)(source)


def test_missing_file_is_named() -> None:
    with pytest.raises(ImageError, match=r"nowhere.jpg: cannot be read \(No such file"):
        Preprocessing(size=(8, 8), **PLAIN)("nowhere.jpg")


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (0, 8)},
        {"resize_to": 10},
        {"resize": "shortest_edge"},
        {"resize": "shortest_edge", "resize_to": 7},
        {"std": (0.1, 0.1, 0)},
        {"mean": (0.1, 0.1, float("nan"))},
        {"fill": (0, 0, 256)},
        {"resample": "cubic"},
        {"sise": (8, 8)},
    ],
)
def test_invalid_settings_are_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        Preprocessing(**{"size": (8, 8), **PLAIN, **wrong})


SHORTEST_EDGE: Any = {"size": (6, 6), "resize": "shortest_edge", "resize_to": 8, **PLAIN}


@pytest.mark.parametrize(
    ("rounding", "scaled", "corner"),
    [("torchvision", (10, 8), (2, 1)), ("nearest", (11, 8), (2, 1))],
)
def test_rounding_of_the_longer_side_and_of_the_crop(
    rounding: Any, scaled: tuple[int, int], corner: tuple[int, int]
) -> None:
    preprocessing = Preprocessing(**SHORTEST_EDGE, rounding=rounding)
    image = picture(40, 30)  # 8 * 40 / 30 = 10.67
    left, top = corner
    expected = image.resize(scaled, Image.Resampling.BILINEAR)
    expected = expected.crop((left, top, left + 6, top + 6))
    assert np.array_equal(preprocessing.load_pixels(image), np.asarray(expected))


@pytest.mark.parametrize(("margin", "corner"), [(0, 0), (1, 0), (2, 1), (3, 2), (5, 2), (7, 4)])
def test_torchvision_rounds_the_corner_of_the_crop_half_to_even(margin: int, corner: int) -> None:
    preprocessing = Preprocessing(size=(6, 6), resize="shortest_edge", resize_to=6, **PLAIN)
    image = picture(6 + margin, 6)
    pixels = np.asarray(image)[:, corner : corner + 6]
    assert np.array_equal(preprocessing.load_pixels(image), pixels)


def test_descriptions_of_older_versions_keep_their_rounding() -> None:
    new = Preprocessing(**SHORTEST_EDGE)
    assert new.rounding == "torchvision"

    old_text = new.model_dump_json(exclude={"rounding", "max_pixels"})
    old = Preprocessing.model_validate_json(old_text)
    assert old.rounding == "nearest"
    assert old.pixels_id != new.pixels_id
    assert old.with_size(12, 12).rounding == "nearest"


@pytest.mark.parametrize("rounding", ["torchvision", "nearest"])
@pytest.mark.parametrize("max_pixels", [1000, 200_000_000])
@pytest.mark.parametrize("settings", [SHORTEST_EDGE, {"size": (6, 6), **PLAIN}])
def test_a_description_is_read_as_it_was_written(
    settings: Any, rounding: Any, max_pixels: int
) -> None:
    if settings["size"] == (6, 6) and "resize" not in settings:
        rounding = "torchvision"  # it has no effect, so it is not described
    written = Preprocessing(**settings, rounding=rounding, max_pixels=max_pixels)
    assert Preprocessing.model_validate_json(json.dumps(written.describe())) == written


@pytest.mark.parametrize("settings", [SHORTEST_EDGE, {"size": (6, 6), **PLAIN}])
def test_descriptions_of_older_versions_are_written_unchanged(settings: Any) -> None:
    keys = ["size", "resize", "resample", "resize_to", "fill", "mean", "std"]
    written = Preprocessing(**settings).model_dump(mode="json", include=set(keys))
    read = Preprocessing.model_validate_json(json.dumps(written))
    assert read.describe() == written
