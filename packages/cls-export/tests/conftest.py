"""Image files and an exported model."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cls_export import BundleError, LabelsMapping, Preprocessing
from cls_export.contract.files import sha256_of_file

CLASSES = {"": 0, "0": 1, "00": 2, "23": 3}


@pytest.fixture(scope="session")
def preprocessing() -> Preprocessing:
    return Preprocessing(size=(12, 10), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


@pytest.fixture(scope="session")
def labels(preprocessing: Preprocessing) -> LabelsMapping:
    return LabelsMapping.from_classes(CLASSES, preprocessing)


def picture(seed: int = 0, width: int = 20, height: int = 30) -> Image.Image:
    """A smooth image: resampling filters give different pixels, rounding does not."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture(scope="session")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    files = []
    for number in range(5):
        path = folder / f"{number}.jpg"
        path.write_bytes(encoded(picture(number), "JPEG", quality=90))
        files.append(path)
    return files


@pytest.fixture(scope="session")
def exported() -> Path:
    """A bundle of a small convolutional network, written by golden/make_bundle.py."""
    return Path(__file__).parent / "golden" / "bundle_v1"


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, which a test may damage."""
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def current() -> Path:
    """A bundle of the newest schema version, which states the hashes of its files."""
    return Path(__file__).parent / "golden" / "bundle_v3"


@pytest.fixture
def current_copy(current: Path, tmp_path: Path) -> Path:
    """A copy of that bundle, which a test may damage."""
    return Path(shutil.copytree(current, tmp_path / "current"))


@pytest.fixture
def restate_hashes() -> Callable[[Path], None]:
    """A function that adapts the mapping of a bundle to its changed files."""

    def restate(bundle: Path) -> None:
        path = bundle / "labels_mapping.json"
        labels = LabelsMapping.load(path).with_file_hashes(
            sha256_of_file(bundle / "model.onnx", error=BundleError),
            sha256_of_file(bundle / "golden/golden.json", error=BundleError),
        )
        labels.save(path)

    return restate
