import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cls_export import Preprocessing
from cls_report.page.thumbnails import Thumbnails

PREPROCESSING = Preprocessing(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with 60 small images, named 0.png to 59.png."""
    for index in range(60):
        Image.new("RGB", (20, 30), (index * 4, 90, 200)).save(tmp_path / f"{index}.png")
    return tmp_path


def decode(url: str) -> np.ndarray:
    content = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)))


def test_thumbnails_are_added_once(folder: Path) -> None:
    thumbnails = Thumbnails(folder, PREPROCESSING)
    assert [thumbnails.add(f"{index}.png") for index in range(60)] == list(range(60))
    assert thumbnails.add("3.png") == 3
    assert len(thumbnails.urls) == 60


def test_thumbnails_stop_at_the_budget(folder: Path) -> None:
    unlimited = Thumbnails(folder, PREPROCESSING)
    unlimited.add("0.png")
    size = len(unlimited.urls[0]) * 3 // 4
    limited = Thumbnails(folder, PREPROCESSING, budget=3 * size)
    assert [limited.add(f"{index}.png") for index in range(60)].count(-1) >= 56


def test_thumbnail_of_a_large_photo_is_small(folder: Path) -> None:
    Image.effect_noise((2000, 1500), 80).convert("RGB").save(folder / "0.png")
    thumbnails = Thumbnails(folder, PREPROCESSING)
    assert thumbnails.add("0.png") == 0
    assert len(thumbnails.urls[0]) < 20_000


def test_unreadable_images_have_no_thumbnail(folder: Path) -> None:
    (folder / "0.png").write_bytes(b"not an image")
    thumbnails = Thumbnails(folder, PREPROCESSING)
    assert thumbnails.add("0.png") == -1
    assert thumbnails.add("missing.png") == -1
    assert thumbnails.add_heat_map("0.png", np.zeros((4, 4), np.uint8)) is None


def test_thumbnail_of_a_16_bit_image_has_the_brightness_of_the_model_input(folder: Path) -> None:
    ramp = np.tile(np.arange(65536, dtype=np.uint16).reshape(1, -1)[:, ::64], (64, 1))
    Image.fromarray(ramp).save(folder / "ramp.png")
    thumbnails = Thumbnails(folder, PREPROCESSING)
    thumbnails.add("ramp.png")
    model_input = PREPROCESSING.load_pixels(folder / "ramp.png")
    assert model_input.mean() == pytest.approx(127.5, abs=0.5)
    assert decode(thumbnails.urls[0]).mean() == pytest.approx(model_input.mean(), abs=1)
