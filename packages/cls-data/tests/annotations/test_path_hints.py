import json
import unicodedata
from pathlib import Path

import pytest

from cls_data.annotations.path_hints import PathHints
from cls_data.annotations.reading import scan_split


def _reason(root: Path, image: str) -> str:
    """Return the reason against a row that names this image."""
    row = json.dumps({"image": image, "suffix": "1"})
    (root / "train" / "annotations.jsonl").write_text(row + "\n")
    (bad_row,) = scan_split(root, "train").bad_rows
    return bad_row.reason


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a data root with photos of different names in train/images/."""
    folder = tmp_path / "train" / "images"
    folder.mkdir(parents=True)
    for name in ("0001.jpg", "Café.JPG", "a b.png", "frame.01.jpg", "notes.txt"):
        (folder / unicodedata.normalize("NFC", name)).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (r"images\0001.jpg", "'images/0001.jpg'"),
        (r".\images\0001.jpg", "'images/0001.jpg'"),
        (r"C:\data\mine\train\images\0001.jpg", "'images/0001.jpg'"),
        (r"\\server\share\train\images\0001.jpg", "'images/0001.jpg'"),
        ("/images/0001.jpg", "'images/0001.jpg'"),
        ("/home/bob/mine/train/images/0001.jpg", "'images/0001.jpg'"),
        ("../../mine/train/images/0001.jpg", "'images/0001.jpg'"),
        ("train/images/0001.jpg", "'images/0001.jpg'"),
        ("mine/images/0001.jpg", "'images/0001.jpg'"),
        ("Images/0001.JPG", "'images/0001.jpg'"),
        ("images/caf\u00e9.jpg", "'images/Caf\u00e9.JPG'"),
        ("images/Cafe\u0301.JPG", "'images/Caf\\xe9.JPG'"),
        ("images/a%20b.png", "'images/a b.png'"),
        ("images%2F0001.jpg", "'images/0001.jpg'"),
        ("file:///home/bob/train/images/0001.jpg", "'images/0001.jpg'"),
        ("images/0001", "'images/0001.jpg'"),
        ("images/frame.01", "'images/frame.01.jpg'"),
        ("images/0001.jpeg", "'images/0001.jpg'"),
        ("images/0001.jpg.jpg", "'images/0001.jpg'"),
        ("images/0001.jpg ", "'images/0001.jpg'"),
        (" images/0001.jpg", "'images/0001.jpg'"),
    ],
)
def test_a_missing_image_gets_the_spelling_that_exists(
    photos: Path, image: str, expected: str
) -> None:
    assert _reason(photos, image).endswith(f"; did you mean {expected}?")


@pytest.mark.parametrize(
    "image", ["images/0002.jpg", "images", "images/notes", "x" * 900, "x" * 5000, "%", "C:\\"]
)
def test_an_image_without_a_similar_name_gets_no_hint(photos: Path, image: str) -> None:
    assert "did you mean" not in _reason(photos, image)


def test_each_folder_is_listed_once(photos: Path) -> None:
    hints = PathHints(str(photos))
    folder = str(photos / "train")
    assert hints.suggest(folder, "images/0001") == "; did you mean 'images/0001.jpg'?"
    (photos / "train" / "images" / "0002.jpg").write_bytes(b"")
    assert hints.suggest(folder, "images/0002") == ""
