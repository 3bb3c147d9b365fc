import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cls_data import DataError
from cls_data.cli.main import main
from cls_data.shards.index import INDEX_FILE, ShardIndex
from cls_data.shards.rows import open_shards
from cls_data.shards.storage import Storage
from cls_data.shards.writing import write_shards


def test_the_command_writes_shards(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tmp_path / "shards"
    command = ["shard", str(root), str(shards), "--size", "16", "12", "--workers", "1"]
    assert main(command) == 0
    assert "Wrote 30 rows" in capsys.readouterr().out
    index = ShardIndex.from_bytes((shards / INDEX_FILE).read_bytes(), "index")
    assert (index.rows, index.shape, index.num_blocks) == (30, (3, 16, 12), 1)
    assert main(command) == 0
    assert "1 of them written before" in capsys.readouterr().out


@pytest.mark.usefixtures("small_blocks")
def test_a_repeated_command_writes_missing_and_unfinished_shards(
    sharded: tuple[Path, Path], tmp_path: Path, preprocessing: Any
) -> None:
    root, original = sharded
    copy = tmp_path / "shards"
    shutil.copytree(original, copy)
    index = ShardIndex.from_bytes((copy / INDEX_FILE).read_bytes(), "index")
    (copy / index.shards[0]).unlink()
    cut = copy / index.shards[1]
    cut.write_bytes(cut.read_bytes()[:1000])
    (copy / INDEX_FILE).unlink()

    summary = write_shards(root, str(copy), preprocessing)
    assert summary.num_reused == 1
    for path in original.iterdir():
        if path.suffix == ".shard":
            assert (copy / path.name).read_bytes() == path.read_bytes()
    assert (copy / INDEX_FILE).read_bytes() == (original / INDEX_FILE).read_bytes()


def test_data_that_fail_the_gate_are_not_written(
    root: Path, tmp_path: Path, preprocessing: Any
) -> None:
    with (root / "train" / "annotations.jsonl").open("a") as stream:
        stream.write(json.dumps({"image": "0.png", "suffix": "2"}) + "\n")
    with pytest.raises(DataError, match="conflicting_labels"):
        write_shards(root, str(tmp_path / "shards"), preprocessing)
    assert list((tmp_path / "shards").iterdir()) == []


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_index_is_named(sharded: tuple[Path, Path], data: st.DataObject) -> None:
    whole = (sharded[1] / INDEX_FILE).read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "other"]))
    damaged = {
        "flip": whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :],
        "cut": whole[:place],
        "other": b"something else",
    }[kind]
    try:
        index = ShardIndex.from_bytes(damaged, "x/index.npz")
    except DataError:
        with pytest.raises(DataError, match=r"^x/index.npz: "):
            ShardIndex.from_bytes(damaged, "x/index.npz")
        return
    # The change was in a byte that no reader looks at, such as a date.
    assert index.to_bytes() == ShardIndex.from_bytes(whole, "index").to_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 999},
        {"rows": -1},
        {"rows": 1000.0},
        {"block_rows": 0},
        {"block_rows": 10**30},
        {"shape": 3},
        {"shape": [1, 16, 16]},
        {"shards": []},
        {"shards": ["../a.shard", "b.shard", "c.shard"]},
        {"shards": [1, 2, 3]},
        {"version": 9},
        {"more": 1},
    ],
)
def test_an_index_that_contradicts_itself_is_named(
    sharded: tuple[Path, Path], tmp_path: Path, change: dict[str, Any]
) -> None:
    arrays = dict(np.load(sharded[1] / INDEX_FILE))
    about = json.loads(arrays["about"].tobytes()) | change
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(tmp_path / INDEX_FILE, **arrays)
    with pytest.raises(DataError, match="not an index of shards"):
        open_shards(str(tmp_path), tmp_path / "cache", max_bytes=10**9, window=2)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("file", "A file is where a folder should be; choose another URL"),
        ("file/shards", "A file is where a folder should be; choose another URL"),
        ("http://127.0.0.1:9/x", "write to a folder that it serves"),
        ("/proc/nothing", "Check the URL"),
    ],
)
def test_an_unwritable_url_is_named_with_advice(
    root: Path,
    tmp_path: Path,
    preprocessing: Any,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    advice: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(DataError, match=f"^{re.escape(url)}.*{re.escape(advice)}"):
        write_shards(root, url, preprocessing)


@pytest.mark.parametrize(
    ("url", "package", "advice"),
    [
        ("s3://bucket/x", "s3fs", "s3fs is not installed; add --extra s3 after `uv run`"),
        ("gs://bucket/x", "gcsfs", "gcsfs is not installed; add --extra gcs after `uv run`"),
        ("sftp://host/x", "paramiko", "a package is missing"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(url: str, package: str, advice: str) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(DataError, match=f"^{re.escape(url)}: .*{re.escape(advice)}"):
        Storage.open(url)
