import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cls_data import DataError, ImagePreprocessing, ImageStore, read_split


def test_rows_hold_what_the_preprocessing_gives(root: Path, preprocessing: ImagePreprocessing) -> None:
    records = read_split(root, "train")
    store = ImageStore.build(records, preprocessing, threads=2)
    assert store.pixels.shape == (30, 3, 16, 16)
    for record, row, size in zip(records, store.pixels, store.sizes, strict=True):
        image = preprocessing.decode(record.path.read_bytes())
        assert np.array_equal(row.permute(1, 2, 0).numpy(), preprocessing.fit(image))
        assert tuple(size) == image.size


def test_gather_returns_the_rows_asked_for(root: Path, preprocessing: ImagePreprocessing) -> None:
    store = ImageStore.build(read_split(root, "train"), preprocessing, threads=1)
    assert torch.equal(store.gather(torch.tensor([4, 0, 4])), store.pixels[[4, 0, 4]])


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_a_damaged_image_is_named_by_row_and_file(root: Path, preprocessing: Any, content: bytes) -> None:
    (root / "train" / "7.png").write_bytes(content)
    with pytest.raises(DataError, match=r"train/annotations.jsonl:8: train/7.png: (.|\n)*Replace the files"):
        ImageStore.build(read_split(root, "train"), preprocessing, threads=2)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_image_is_refused(tmp_path: Path, preprocessing: Any, kind: str, share: float) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(stream, kind)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "cut").write_bytes(stream.getvalue()[: int(share * len(stream.getvalue()))])
    (tmp_path / "train" / "rows.jsonl").write_text(json.dumps({"image": "cut", "label": "1"}))
    with pytest.raises(DataError, match="1 image"):
        ImageStore.build(read_split(tmp_path, "train"), preprocessing, threads=1)
