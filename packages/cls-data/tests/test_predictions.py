import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy_format

from cls_data import DataError, EvaluationOutputs, Predictions
from cls_data.annotations.reading import Record
from cls_data.npz_files import read_npz

METADATA = {"game": "ü", "blur": 2}


def predictions() -> Predictions:
    outputs = EvaluationOutputs(
        "valid",
        torch.linspace(-1, 1, 6).reshape(3, 2),
        torch.tensor([0, 1, 1]),
        torch.tensor([2, 0, 1]),
    )
    records = [
        Record("a.jpg", "", "23", "game 1", {}, "x:1"),
        Record("b.jpg", "", "23", None, METADATA, "x:2"),
        Record("ü.jpg", "", "", None, {}, "x:3"),
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


def test_load_returns_an_image_of_several_rows(tmp_path: Path) -> None:
    path = saved(tmp_path / "valid.npz", ids=np.array(["a", "b", "a"]))
    assert Predictions.load(path).ids.tolist() == ["a", "b", "a"]


def test_load_returns_names_that_are_not_utf_8(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "valid.npz",
        ids=np.array(["a", "b", "caf\udce9"]),
        metadata=np.array(["{}", "{}", '{"game": "\ud800"}']),
    )
    read = Predictions.load(path)
    assert read.ids[2] == "caf\udce9"
    assert read.row_metadata(2) == {"game": "\ud800"}


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
    with pytest.raises(DataError, match=r"valid.npz: cut short, damaged, or not an npz file"):
        Predictions.load(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"version": np.array(3)},
            "unsupported predictions version '3'; this cls-data reads versions 1 to 2",
        ),
        ({"version": np.array("2")}, "unsupported predictions version '2'"),
        ({"logits": None}, "not a predictions file .no logits."),
        (
            {"logits": np.full((3, 2), np.nan, np.float32)},
            r"3 image\(s\) have non-finite logits, first ü.jpg",
        ),
        ({"logits": np.zeros((3, 3), np.float32)}, r"logits has shape \(3, 3\); expected \(3, 2\)"),
        ({"logits": np.zeros((3, 2), np.int64)}, "logits has dtype int64"),
        ({"labels": np.array([0, 1, 2])}, "labels range from 0 to 2; expected 0 to 1"),
        ({"groups": np.array(["a"])}, r"groups has shape \(1,\)"),
        ({"classes": np.array([["", "23"]])}, r"classes has shape \(1, 2\)"),
        ({"classes": np.array(["23", "23"])}, "the class '23' occurs more than once"),
        ({"ids": np.array("a")}, r"ids has shape \(\)"),
        ({"ids": np.arange(3)}, "ids has dtype int64"),
        ({"logits": np.full((3, 2), 1e308)}, "logits has dtype float64; expected float32"),
        ({"metadata": np.array(["{}", "{}", "[1]"])}, r"metadata '\[1\]' is not a JSON object"),
        ({"metadata": np.array(["{}", "{}", "{"])}, "metadata '{' is not a JSON object"),
        ({"metadata": np.full(3, "[" * 100_000)}, "is not a JSON object"),
        ({"ids": np.array([object()] * 3, dtype=object)}, "cut short, damaged, or not an npz file"),
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
        match=r"No such file or directory.; write it again with `uv run python -m cls_train.stages",
    ):
        Predictions.load(tmp_path / "valid.npz")


def test_load_rejects_an_image_file(tmp_path: Path) -> None:
    (tmp_path / "valid.npz").write_bytes(b"\x89PNG" + bytes(100))
    with pytest.raises(DataError, match="cut short, damaged, or not an npz file"):
        Predictions.load(tmp_path / "valid.npz")


def test_load_rejects_empty_predictions(tmp_path: Path) -> None:
    nothing = {
        name: getattr(predictions(), name)[:0]
        for name in ("ids", "labels", "logits", "groups", "metadata", "sizes")
    }
    with pytest.raises(DataError, match="0 images of 2 classes; expected at least one of each"):
        Predictions.load(saved(tmp_path / "valid.npz", **nothing))


@given(position=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=200)
def test_a_flipped_bit_is_reported_with_the_path_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, position: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.npz"
    written = predictions()
    written.save(path)
    content = bytearray(path.read_bytes())
    bit = position % (8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    message = ""
    try:
        read = Predictions.load(path)
    except DataError as error:
        message = str(error)
    if message:
        assert message.startswith(f"{path}: ")
    else:
        for name in ("ids", "labels", "logits", "classes", "groups", "metadata", "sizes"):
            assert np.array_equal(getattr(read, name), getattr(written, name))


def declared(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return a npy file whose header states a shape and a dtype, with 100 bytes of data."""
    stream = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(stream, header)
    return stream.getvalue() + bytes(100)


BOMBS = {
    "declared shape": declared((10**12, 1000), "<f4"),
    "declared text length": declared((1000,), "<U500000000"),
    "values of no size": declared((10**15,), "<U0"),
    "negative shape": declared((-5, -5), "<f4"),
    "structured dtype": declared((1,), [("a", "<f4", (10**9,))]),  # type: ignore[arg-type]
    "character that does not exist": declared((1,), "<U25")[:-100] + b"\xff" * 100,
    "long header": b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little") + b" " * 1000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_arrays_that_state_impossible_sizes_are_rejected_before_memory_is_taken(
    tmp_path: Path, bomb: str
) -> None:
    path = tmp_path / "valid.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("logits.npy", BOMBS[bomb])
    tracemalloc.start()
    with pytest.raises(DataError, match=r"valid\.npz: cut short, damaged, or not an npz file"):
        Predictions.load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_zip_bomb_is_rejected_before_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "valid.npz"
    np.savez_compressed(path, logits=np.zeros((1000, 5000), np.float32))
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(DataError, match=r"valid\.npz: .*20,000,128 bytes of arrays; at most"):
        read_npz(path, max_bytes=1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "dangling link"])
def test_a_predictions_file_that_is_no_regular_file_is_rejected(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "valid.npz"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nothing")
    with pytest.raises(DataError, match=r"valid\.npz: cannot be read"):
        Predictions.load(path)


def test_loaded_arrays_can_become_tensors(tmp_path: Path) -> None:
    path = tmp_path / "valid.npz"
    predictions().save(path)
    loaded = Predictions.load(path)
    # PyTorch warns about arrays that cannot be written.
    loaded.labels[0] = 0
    loaded.logits[0] = 0.0


def test_every_flipped_bit_of_the_directory_is_reported_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "flipped.npz"
    written = predictions()
    written.save(path)
    content = path.read_bytes()
    for bit in range(8 * content.rindex(b"PK\5\6"), 8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            read = Predictions.load(path)
        except DataError:
            continue
        assert np.array_equal(read.sizes, written.sizes), bit
