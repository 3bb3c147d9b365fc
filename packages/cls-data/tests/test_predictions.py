from pathlib import Path

import numpy as np
import pytest
import torch

from cls_data import DataError, EvaluationOutputs, Predictions
from cls_data.annotations.reading import Record

METADATA = {"game": "ü", "blur": 2}


def predictions() -> Predictions:
    outputs = EvaluationOutputs(
        "valid", torch.randn(3, 2), torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1])
    )
    records = [
        Record("a.jpg", Path("a.jpg"), "23", "game 1", {}, "x:1"),
        Record("b.jpg", Path("b.jpg"), "23", None, METADATA, "x:2"),
        Record("ü.jpg", Path("ü.jpg"), "", None, {}, "x:3"),
    ]
    return Predictions.from_outputs(
        outputs, records, ["", "23"], np.array([[1, 2], [3, 4], [5, 6]])
    )


def saved(path: Path, **changed: np.ndarray) -> Path:
    """Write a predictions file with some arrays changed, or left out if None."""
    predictions().save(path)
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files} | changed
    np.savez_compressed(
        path, **{name: array for name, array in arrays.items() if array is not None}
    )
    return path


def test_load_returns_saved_predictions(tmp_path: Path) -> None:
    written = predictions()
    written.save(tmp_path / "new" / "valid.npz")
    read = Predictions.load(tmp_path / "new" / "valid.npz")
    assert read.ids.tolist() == ["ü.jpg", "a.jpg", "b.jpg"]
    assert read.classes.tolist() == ["", "23"]
    assert read.labels.tolist() == [0, 1, 1]
    assert np.array_equal(read.logits, written.logits)
    assert read.groups.tolist() == ["", "game 1", ""]
    assert [read.row_metadata(row) for row in range(3)] == [{}, {}, METADATA]
    assert read.sizes.tolist() == [[5, 6], [1, 2], [3, 4]]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["valid.npz"]


def test_load_reads_version_1(tmp_path: Path) -> None:
    written = predictions()
    path = tmp_path / "valid.npz"
    np.savez_compressed(
        path, ids=written.ids, labels=written.labels, logits=written.logits, classes=written.classes
    )
    read = Predictions.load(path)
    assert read.groups.tolist() == [""] * 3
    assert read.row_metadata(0) == {}
    assert not read.sizes.any()


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_load_rejects_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path / "valid.npz")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"valid.npz: cut short or not a predictions file"):
        Predictions.load(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"version": np.array(3)},
            "unsupported predictions version 3; this cls-data reads versions 1 to 2",
        ),
        ({"version": np.array("2")}, "unsupported predictions version 2"),
        ({"logits": None}, "not a predictions file .no logits."),
        (
            {"logits": np.full((3, 2), np.nan, np.float32)},
            r"3 image\(s\) have non-finite logits, first ü.jpg",
        ),
        ({"logits": np.zeros((3, 3), np.float32)}, r"logits has shape \(3, 3\); expected \(3, 2\)"),
        ({"logits": np.zeros((3, 2), np.int64)}, "logits has dtype int64"),
        ({"labels": np.array([0, 1, 2])}, "labels range from 0 to 2; expected 0 to 1"),
        ({"groups": np.array(["a"])}, r"groups has shape \(1,\)"),
        ({"ids": np.array([object()] * 3, dtype=object)}, "cut short or not a predictions file"),
    ],
)
def test_load_rejects_invalid_arrays(
    tmp_path: Path, changed: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Predictions.load(saved(tmp_path / "valid.npz", **changed))


def test_load_of_a_missing_file_says_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"no such file; write it again with `uv run python -m cls_train.stages.evaluate",
    ):
        Predictions.load(tmp_path / "valid.npz")


def test_load_rejects_an_image_file(tmp_path: Path) -> None:
    (tmp_path / "valid.npz").write_bytes(b"\x89PNG" + bytes(100))
    with pytest.raises(DataError, match="cut short or not a predictions file"):
        Predictions.load(tmp_path / "valid.npz")
