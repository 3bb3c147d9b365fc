import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cls_data import ClassificationDataModule, DataError, DataModuleConfig, LightAugmentation
from cls_data.shards.block_cache import PREFETCH_THREAD
from cls_data.shards.rows import open_shards

BLOCK_BYTES = 128 * 3 * 16 * 16


def build(root: Path, preprocessing: Any, cache: Path, *, shards: str | Path, **values: Any) -> Any:
    config = DataModuleConfig(
        root=root,
        batch_size=32,
        **{"shards": str(shards), "shard_cache": cache, "shard_window": 2, **values},
    )
    data = ClassificationDataModule(config, preprocessing, LightAugmentation())
    data.prepare_data()
    data.setup()
    return data


def epoch_of(data: Any, epoch: int, start: int = 0) -> list[Any]:
    data._resume_batch = start
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    batches = list(loader)
    data.teardown()
    return batches


def cached_bytes(cache: Path) -> int:
    """Return the bytes of the copies, as if each were of a whole block."""
    return len(list(cache.rglob("*.block"))) * BLOCK_BYTES


@pytest.fixture
def without_images(sharded: tuple[Path, Path], tmp_path: Path) -> Path:
    """Return a copy of the data root whose training images are gone."""
    root = tmp_path / "root"
    shutil.copytree(sharded[0], root, ignore=lambda folder, names: [])
    for path in (root / "train").glob("*.png"):
        path.unlink()
    return root


@pytest.mark.parametrize("place", ["folder", "server"])
def test_rows_of_shards_are_those_of_the_files(
    sharded: tuple[Path, Path],
    without_images: Path,
    server: Any,
    preprocessing: Any,
    tmp_path: Path,
    place: str,
) -> None:
    root, shards = sharded
    url = server.url if place == "server" else shards
    data = build(without_images, preprocessing, tmp_path / "cache", shards=url)
    plain = ClassificationDataModule(DataModuleConfig(root=root), preprocessing)
    plain.prepare_data()
    plain.setup()
    assert data.fingerprint == plain.fingerprint
    assert data.statistics == plain.statistics

    seen = []
    for batch in epoch_of(data, epoch=1):
        assert torch.equal(batch["images"], plain.pixels("train")[batch["index"]])
        assert torch.equal(batch["labels"], plain._dataset["train"].labels[batch["index"]])
        seen += batch["index"].tolist()
    assert len(seen) == len(set(seen)) == 1000 // 32 * 32
    assert torch.equal(data.pixels("valid"), plain.pixels("valid"))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), epoch=st.integers(0, 50), start=st.integers(0, 30))
def test_a_resumed_epoch_has_the_batches_of_an_uninterrupted_one(
    sharded: tuple[Path, Path],
    preprocessing: Any,
    tmp_path: Path,
    seed: int,
    epoch: int,
    start: int,
) -> None:
    root, shards = sharded
    whole = epoch_of(build(root, preprocessing, tmp_path / "a", shards=shards, seed=seed), epoch)
    resumed = build(root, preprocessing, tmp_path / str(seed), shards=shards, seed=seed)
    rest = epoch_of(resumed, epoch, start)
    assert len(rest) == len(whole) - start
    for batch, expected in zip(rest, whole[start:], strict=True):
        assert batch["seed"] == expected["seed"]
        assert torch.equal(batch["index"], expected["index"])
        assert torch.equal(batch["images"], expected["images"])


def test_the_cache_stays_within_its_limit(
    sharded: tuple[Path, Path], preprocessing: Any, tmp_path: Path
) -> None:
    root, shards = sharded
    cache = tmp_path / "cache"
    limit = 5 * BLOCK_BYTES + 1000
    data = build(root, preprocessing, cache, shards=shards, shard_cache_gigabytes=limit / 1e9)
    for epoch in range(3):
        data._resume_batch = 0
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        for _ in loader:
            assert cached_bytes(cache) <= limit
        data.teardown()


def test_a_block_is_fetched_once_while_it_is_cached(
    sharded: tuple[Path, Path], server: Any, preprocessing: Any, tmp_path: Path
) -> None:
    data = build(sharded[0], preprocessing, tmp_path / "cache", shards=server.url)
    epoch_of(data, 0)
    epoch_of(data, 1)
    again = build(sharded[0], preprocessing, tmp_path / "cache", shards=server.url)
    epoch_of(again, 2)
    shards = [path for path in server.requests if path.endswith(".shard")]
    assert len(shards) == 8


def test_rows_can_be_read_in_order(
    sharded: tuple[Path, Path], preprocessing: Any, tmp_path: Path
) -> None:
    limit = 5 * BLOCK_BYTES + 1000
    values = {"shards": sharded[1], "shard_cache_gigabytes": limit / 1e9}
    data = build(sharded[0], preprocessing, tmp_path / "cache", **values)
    plain = ClassificationDataModule(DataModuleConfig(root=sharded[0]), preprocessing)
    plain.setup()
    device = torch.device("cpu")
    for batch, expected in zip(
        data.unaugmented("train", device), plain.unaugmented("train", device), strict=True
    ):
        assert torch.equal(batch["images"], expected["images"])
    assert cached_bytes(tmp_path / "cache") <= limit


def test_processes_share_the_cache(
    sharded: tuple[Path, Path], server: Any, preprocessing: Any, tmp_path: Path
) -> None:
    data = build(sharded[0], preprocessing, tmp_path / "cache", shards=server.url)
    rows = data._dataset["train"].store.rows
    index = torch.arange(0, 1000, 7)
    expected = rows.gather(index)
    num_requests = len(server.requests)
    copy = pickle.loads(pickle.dumps(rows))
    assert torch.equal(copy.gather(index), expected)
    assert len(server.requests) == num_requests


def test_a_block_is_fetched_once_by_several_caches_at_the_same_time(
    sharded: tuple[Path, Path], server: Any, tmp_path: Path
) -> None:
    rows = open_shards(server.url, tmp_path, max_bytes=10**9, window=2).rows
    copies = [pickle.loads(pickle.dumps(rows)) for _ in range(4)]
    index = torch.randperm(1000)
    with ThreadPoolExecutor(len(copies)) as pool:
        results = list(pool.map(lambda copy: copy.gather(index), copies))
    for result in results:
        assert torch.equal(result, rows.gather(index))
    shards = [path for path in server.requests if path.endswith(".shard")]
    assert len(shards) == 8


def test_drafts_of_killed_processes_are_removed(sharded: tuple[Path, Path], tmp_path: Path) -> None:
    open_shards(str(sharded[1]), tmp_path, max_bytes=10**9, window=2)
    (folder,) = tmp_path.iterdir()
    command = f"""
from pathlib import Path
from cls_export.contract.files import draft_path
draft_path(Path({str(folder / "3.block")!r})).touch()
"""
    subprocess.run([sys.executable, "-c", command], check=True)
    assert len(list(folder.glob(".*.draft"))) == 1
    open_shards(str(sharded[1]), tmp_path, max_bytes=10**9, window=2)
    assert list(folder.glob(".*.draft")) == []


def test_threads_end_with_training_even_if_the_server_is_down(
    sharded: tuple[Path, Path], server: Any, preprocessing: Any, tmp_path: Path
) -> None:
    data = build(sharded[0], preprocessing, tmp_path / "cache", shards=server.url)
    loader = data.train_dataloader()
    batches = iter(loader)
    next(batches)
    server.is_broken = True
    data.teardown()
    names = {thread.name for thread in threading.enumerate()}
    assert PREFETCH_THREAD not in names


def test_a_short_outage_is_waited_for(
    sharded: tuple[Path, Path], server: Any, tmp_path: Path
) -> None:
    store = open_shards(server.url, tmp_path, max_bytes=10**9, window=2, retry_seconds=20)
    server.is_broken = True

    def repair() -> None:
        server.is_broken = False

    timer = threading.Timer(1.0, repair)
    timer.start()
    assert len(store.rows.gather(torch.tensor([0, 500]))) == 2
    timer.join()


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_a_damaged_shard_is_named(
    sharded: tuple[Path, Path], preprocessing: Any, tmp_path: Path, damage: str
) -> None:
    root, shards = sharded
    copy = tmp_path / "shards"
    shutil.copytree(shards, copy)
    data = build(root, preprocessing, tmp_path / "cache", shards=copy)
    name = data._dataset["train"].store.rows.index.shards[1]
    path = copy / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:100])
    else:
        path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    with pytest.raises(DataError, match=rf"{name}.*cls-data shard"):
        epoch_of(data, 0)
    data.teardown()


@pytest.mark.parametrize("change", ["cut", "flipped", "empty"])
def test_a_damaged_copy_is_fetched_again(
    sharded: tuple[Path, Path], preprocessing: Any, tmp_path: Path, change: str
) -> None:
    root, shards = sharded
    cache = tmp_path / "cache"
    expected = epoch_of(build(root, preprocessing, cache, shards=shards), 0)
    for path in cache.rglob("*.block"):
        content = path.read_bytes()
        changed = {"cut": content[:50], "flipped": b"\0" + content[1:], "empty": b""}
        path.write_bytes(changed[change])
    again = epoch_of(build(root, preprocessing, cache, shards=shards), 0)
    for batch, other in zip(again, expected, strict=True):
        assert torch.equal(batch["images"], other["images"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shards": None}, "shard_cache needs shards=URL"),
        ({"shard_cache": None}, "shards=URL needs shard_cache=FOLDER"),
        ({"sampler": "weighted"}, "class_weights"),
        ({"num_workers": 2}, "set num_workers=0"),
        ({"fold": 0, "folds": 2}, "fold"),
        ({"layout": "folder"}, "layout=folder"),
    ],
)
def test_settings_that_contradict_shards_are_refused(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    given = {"root": tmp_path, "shards": "x", "shard_cache": tmp_path, **values}
    with pytest.raises(ValueError, match=message):
        DataModuleConfig(**given)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stored_size": (8, 8)}, r"size is \[16, 16\], but the run needs \[8, 8\]"),
        ({"gate": {"damaged_images": "warn"}}, "damaged images is refused"),
        ({"shard_cache_gigabytes": 1e-6}, "two windows of 2 blocks need"),
        ({"shards": "nowhere"}, r"nowhere/index.npz: cannot be read"),
        ({"shards": "nothing://x"}, "nothing://x: cannot be used"),
        ({"shards": "s3://"}, "s3://: cannot be used .no bucket or host.; expected a folder or"),
    ],
)
def test_shards_that_do_not_fit_the_run_are_named(
    sharded: tuple[Path, Path],
    preprocessing: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        build(sharded[0], preprocessing, tmp_path / "cache", **({"shards": sharded[1]} | values))


@pytest.mark.parametrize("change", ["label", "row", "order"])
def test_annotations_that_changed_are_noticed(
    without_images: Path,
    sharded: tuple[Path, Path],
    preprocessing: Any,
    tmp_path: Path,
    change: str,
) -> None:
    file = without_images / "train" / "annotations.jsonl"
    lines = file.read_text().splitlines()
    if change == "label":
        lines[5] = lines[5].replace('"suffix": "1"', '"suffix": "2"')
        message = "have changed since `cls-data shard` checked them"
    elif change == "row":
        del lines[5]
        message = "the annotations have 999 training rows instead of 1000"
    else:
        lines.reverse()
        message = "or the same in another order"
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        build(without_images, preprocessing, tmp_path / "cache", shards=sharded[1])


def test_a_cache_on_a_full_disk_is_named(
    sharded: tuple[Path, Path], preprocessing: Any, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DataError, match=r"choose another folder with data.shard_cache"):
        build(sharded[0], preprocessing, file, shards=sharded[1])
