"""Data roots and quarantines that are URLs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from cls_train.composition.config import RunConfig
from cls_train.errors import ConfigError
from cls_train.remote_data import fetch_remote_data


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.setenv("CLS_DATA_CACHE", str(tmp_path / "cache"))
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe({"/crops/train/a.jsonl": b"{}", "/crops/train/images/1.png": b"one"})
    yield filesystem
    filesystem.rm("/crops", recursive=True)


def fetch(composed: Callable[..., RunConfig], url: str = "memory://crops") -> Path:
    return Path(fetch_remote_data(composed("data=jsonl", f"data.root={url}")).data["root"])


def read_all(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_remote_root_is_fetched_and_follows_its_changes(composed: Any, bucket: Any) -> None:
    folder = fetch(composed)
    assert read_all(folder) == {"train/a.jsonl": b"{}", "train/images/1.png": b"one"}

    bucket.pipe({"/crops/train/images/1.png": b"two", "/crops/valid/b.jsonl": b"[]"})
    bucket.rm("/crops/train/a.jsonl")
    assert fetch(composed, "memory://crops/") == folder
    assert read_all(folder) == {"train/images/1.png": b"two", "valid/b.jsonl": b"[]"}


def test_fetched_files_are_not_fetched_again_unless_they_are_lost(
    composed: Any, bucket: Any
) -> None:
    folder = fetch(composed)
    kept, lost = folder / "train/a.jsonl", folder / "train/images/1.png"
    before = kept.stat().st_mtime_ns
    lost.unlink()
    fetch(composed)
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == b"one"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://crop", "memory://crop has no files"),
        ("gs://", "no bucket or host"),
        ("nonsense://x", "cannot be used"),
    ],
)
def test_a_wrong_url_is_one_message(composed: Any, bucket: Any, url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fetch(composed, url)


def test_a_remote_quarantine_is_fetched_with_and_without_a_remote_root(
    composed: Any, bucket: Any
) -> None:
    bucket.pipe({"/crops/leave-out.jsonl": b"{}\n"})
    for root in ("memory://crops", "/local"):
        settings = (f"data.root={root}", "data.quarantine=memory://crops/leave-out.jsonl")
        data = fetch_remote_data(composed("data=jsonl", *settings)).data
        assert Path(data["quarantine"]).read_bytes() == b"{}\n"
        assert (data["root"] == "/local") == (root == "/local")


@pytest.mark.parametrize("name", ["missing.jsonl", ""])
def test_a_quarantine_that_does_not_exist_is_one_message(
    composed: Any, bucket: Any, name: str
) -> None:
    settings = ("data.root=/local", f"data.quarantine=memory://crops/{name}")
    with pytest.raises(ConfigError, match=r"data\.quarantine: memory://crops/.* does not exist"):
        fetch_remote_data(composed("data=jsonl", *settings))
