"""Fixtures: small data sets of image files on disk."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cls_export.contract.preprocessing import Preprocessing

WriteSplit = Callable[..., Path]


@pytest.fixture(scope="session")
def preprocessing() -> Preprocessing:
    return Preprocessing(size=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture
def write_split(tmp_path: Path) -> WriteSplit:
    """Write one split with an image for each label, and return the data root."""

    def write(split: str, labels: Sequence[str], extra_rows: Sequence[dict[str, Any]] = ()) -> Path:
        folder = tmp_path / split
        folder.mkdir()
        rows = [{"image": f"{number}.png", "suffix": label} for number, label in enumerate(labels)]
        rng = np.random.default_rng(list(split.encode()))
        for number in range(len(labels)):
            levels = rng.integers(0, 256, (20 + number % 5, 12, 3), dtype=np.uint8)
            Image.fromarray(levels).save(folder / f"{number}.png")
        text = "".join(json.dumps(row) + "\n" for row in [*rows, *extra_rows])
        (folder / "annotations.jsonl").write_text(text)
        return tmp_path

    return write


@pytest.fixture
def root(write_split: WriteSplit) -> Path:
    """Return a data root with 3 classes and 30 training, 9 validation, and 6 test images."""
    write_split("train", ["10", "2", "1"] * 10)
    write_split("valid", ["1", "2", "10"] * 3)
    return write_split("test", ["1", "10"] * 3)


Picture = Callable[..., Image.Image]
WriteSet = Callable[[Path, Mapping[str, Sequence[Any]]], Path]


@pytest.fixture(scope="session")
def picture() -> Picture:
    """Return a function that makes a different image for each number, without gate findings."""

    def make(number: int, size: tuple[int, int] = (24, 32)) -> Image.Image:
        coarse = np.random.default_rng(number).integers(0, 256, (8, 6, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST)

    return make


@pytest.fixture(scope="session")
def write_set() -> WriteSet:
    """Return a function that writes splits and returns the data root.

    A row is a line, or (name, image or file bytes or None for an existing file, label, other keys).
    """

    def write(root: Path, splits: Mapping[str, Sequence[Any]]) -> Path:
        for split, rows in splits.items():
            folder = root / split
            folder.mkdir(parents=True, exist_ok=True)
            lines = []
            for row in rows:
                if isinstance(row, bytes):
                    lines.append(row)
                    continue
                name, content, label, *more = row
                if isinstance(content, Image.Image):
                    content.save(folder / name)
                elif content is not None:
                    (folder / name).write_bytes(content)
                lines.append(
                    json.dumps(
                        {"image": name, "suffix": label, **(more[0] if more else {})}
                    ).encode()
                )
            (folder / "annotations.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
        return root

    return write


@pytest.fixture
def pets(tmp_path: Path, picture: Any) -> Path:
    """Return class folders without splits: 30 cats and 20 dogs."""
    root = tmp_path / "pets"
    for number in range(50):
        label = "cat" if number < 30 else "dog"
        file = root / label / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(file)
    return root


@pytest.fixture
def split_pets(pets: Path) -> Path:
    """Return the same images in split folders."""
    for number, file in enumerate(sorted(pets.rglob("*.png"))):
        split = ("train", "train", "train", "val", "testing")[number % 5]
        target = pets / split / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    (pets / "cat").rmdir()
    (pets / "dog").rmdir()
    return pets
