"""Data sets whose images are links: rows are named by the path that they state."""

import json
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cls_data import GateConfig, check, read_split
from cls_data.errors import DataError
from cls_data.splits.splitting import write_splits

Link = Callable[[Path, Path], None]


def _move_into_cache(cache: Path) -> Link:
    """Return a function that replaces a file by a link into a cache, as DVC does."""

    def link(root: Path, file: Path) -> None:
        name = f"{abs(hash(file)):032x}"
        target = cache / name[:2] / name[2:]
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
        file.symlink_to(os.path.relpath(target, file.parent))

    return link


def _link_twice(root: Path, file: Path) -> None:
    """Replace a file by a link to a link to it."""
    target = root.parent / "blobs" / f"{abs(hash(file)):064x}"
    target.parent.mkdir(exist_ok=True)
    file.rename(target)
    middle = root / "links" / target.name
    middle.parent.mkdir(exist_ok=True)
    middle.symlink_to(target)
    file.symlink_to(middle)


def _link_hard(root: Path, file: Path) -> None:
    target = root / "objects" / str(abs(hash(file)))
    target.parent.mkdir(exist_ok=True)
    os.link(file, target)


def _link_every_file(root: Path, link: Link) -> None:
    for file in sorted(root.rglob("*.png")):
        link(root, file)


def _link_split_folders(root: Path) -> None:
    for split in ("train", "valid", "test"):
        (root / split).rename(root.parent / f"moved-{split}")
        (root / split).symlink_to(root.parent / f"moved-{split}")


def _link_image_folders(root: Path) -> None:
    """Move the images of each split out of the root, and link the folder that holds them."""
    for split in ("train", "valid", "test"):
        images = root.parent / f"images-{split}"
        images.mkdir()
        for file in sorted((root / split).glob("*.png")):
            file.rename(images / file.name)
        (root / split / "images").symlink_to(images)
        annotations = root / split / "annotations.jsonl"
        text = annotations.read_text().replace('"image": "', '"image": "images/')
        annotations.write_text(text)


_LAYOUTS: dict[str, Callable[[Path], None]] = {
    "cache in the root": lambda root: _link_every_file(root, _move_into_cache(root / ".dvc/cache")),
    "cache beside the root": lambda root: _link_every_file(
        root, _move_into_cache(root.parent / ".dvc/cache")
    ),
    "chains of links": lambda root: _link_every_file(root, _link_twice),
    "hard links": lambda root: _link_every_file(root, _link_hard),
    "linked split folders": _link_split_folders,
    "linked image folders": _link_image_folders,
}


@pytest.fixture
def roboflow(tmp_path: Path, write_set: Any, picture: Any) -> Path:
    """Return a data root with 3 copies of each of 10 images, as Roboflow writes them."""
    rows = []
    for number in range(30):
        name = f"source{number // 3}_png.rf.{number:032x}.png"
        rows.append((name, picture(number), "12"[number // 3 % 2]))
    root = tmp_path / "repo"
    splits = {"train": rows[:18], "valid": rows[18:24], "test": rows[24:]}
    return Path(write_set(root, splits))


def _stated_ids(root: Path) -> list[str]:
    ids = []
    for split in ("train", "valid", "test"):
        text = (root / split / "annotations.jsonl").read_text()
        ids += [f"{split}/{json.loads(line)['image']}" for line in text.splitlines()]
    return sorted(ids)


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_linked_images_are_named_by_the_path_that_rows_state(roboflow: Path, layout: str) -> None:
    _LAYOUTS[layout](roboflow)
    records = [*read_split(roboflow, "train"), *read_split(roboflow, "valid")]
    records += read_split(roboflow, "test")
    assert sorted(record.id for record in records) == _stated_ids(roboflow)
    assert all(record.path == roboflow / record.id for record in records)


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_linked_images_pass_the_gate_with_the_findings_of_files(
    roboflow: Path, layout: str, preprocessing: Any
) -> None:
    config = GateConfig(wrong_extensions="error")
    before = check(roboflow, preprocessing, config)
    _LAYOUTS[layout](roboflow)
    after = check(roboflow, preprocessing, config)
    assert "wrong_extensions" not in after.findings
    assert after.findings.keys() == before.findings.keys()
    if layout != "linked image folders":  # that one renames the images
        assert after.fingerprint == before.fingerprint


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_split_keeps_the_copies_of_linked_source_images_together(
    roboflow: Path, layout: str
) -> None:
    _LAYOUTS[layout](roboflow)
    ids = _stated_ids(roboflow)
    (name,) = write_splits(roboflow).names
    splits_of_source = defaultdict(set)
    new_ids = []
    for split in ("train", "valid", "test"):
        for record in read_split(roboflow, split, annotations=name):
            source, _, _ = record.path.name.partition("_png.rf.")
            splits_of_source[source].add(split)
            new_ids.append(record.id)
    assert sorted(new_ids) == ids
    assert len(splits_of_source) == 10
    assert all(len(splits) == 1 for splits in splits_of_source.values())


@pytest.mark.parametrize("linked", [True, False])
def test_a_quarantine_names_linked_rows_as_before(
    roboflow: Path, linked: bool, preprocessing: Any
) -> None:
    (roboflow / "train" / "source0_png.rf.00000000000000000000000000000001.png").write_bytes(b"?")
    if linked:
        _LAYOUTS["cache beside the root"](roboflow)
    report = check(roboflow, preprocessing)
    assert list(report.rows_to_quarantine()) == ["train/annotations.jsonl:2"]


@pytest.mark.parametrize("folder", ["train", "", "annotations-of-others"])
def test_an_annotation_file_that_is_a_link_out_of_the_root_is_refused(
    root: Path, folder: str
) -> None:
    secret = root.parent.parent / f"{root.parent.name}-{folder}" / "secret"
    secret.parent.mkdir()
    secret.write_text("-----BEGIN PRIVATE KEY-----\n")
    (root / "train" / "more.jsonl").symlink_to(secret)
    with pytest.raises(DataError, match=r"more\.jsonl: is a link to .*secret, outside") as caught:
        read_split(root, "train")
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "files/md5/ab/" + "0" * 30,
        "blobs/" + "a1" * 20,
        "blobs/" + "a1" * 32,
        "objects/x/SHA256E-s812--" + "a1" * 32 + ".jsonl",
    ],
    ids=["dvc", "hf-git", "hf-lfs", "git-annex"],
)
def test_an_annotation_file_may_be_a_link_into_a_cache_named_by_content(
    root: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    target = tmp_path_factory.mktemp("cache") / name
    target.parent.mkdir(parents=True)
    annotations = root / "train" / "annotations.jsonl"
    annotations.rename(target)
    annotations.symlink_to(target)
    records = read_split(root, "train")
    assert [record.source for record in records[:2]] == [
        "train/annotations.jsonl:1",
        "train/annotations.jsonl:2",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "-----BEGIN PRIVATE KEY-----",
        '{"PRIVATE": 1}',
        '{"image": "0.png", "suffix": {"PRIVATE": 1}}',
        '{"image": "0.png", "suffix": "1", "PRIVATE": 1, "PRIVATE": 2}',
        '["PRIVATE"]',
        '"PRIVATE',
    ],
)
def test_text_outside_the_root_never_appears_in_messages(
    root: Path, tmp_path_factory: pytest.TempPathFactory, line: str
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "train"
    (root / "train").rename(elsewhere)
    (root / "train").symlink_to(elsewhere)
    (elsewhere / "more.jsonl").write_text(line)
    with pytest.raises(DataError, match=r"train/more\.jsonl:1: ") as caught:
        read_split(root, "train")
    assert "PRIVATE" not in str(caught.value)
