import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cls_data.annotations.class_folders import read_class_folders
from cls_data.errors import DataError


def _touch(root: Path, files: Sequence[str]) -> Path:
    """Write a different text to each file."""
    for name in files:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.fsencode(name))
    return root


def _labels(root: Path) -> dict[str, dict[str, str]]:
    """Return the label of each image, by split and id."""
    found = read_class_folders(root)
    labels: dict[str, dict[str, str]] = {}
    for split, records in found.records.items():
        labels[split] = {record.id: record.label for record in records}
    return labels


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [
        ("train", "valid", "test"),
        ("training", "validation", "testing"),
        ("Train", "Val", "TEST"),
    ],
)
def test_split_folders_have_their_common_names(
    tmp_path: Path, train: str, valid: str, test: str
) -> None:
    root = _touch(
        tmp_path,
        [f"{train}/cat/1.jpg", f"{train}/dog/2.JPEG", f"{valid}/cat/3.png", f"{test}/dog/4.jpg"],
    )
    assert read_class_folders(root).has_splits
    assert _labels(root) == {
        "train": {f"{train}/cat/1.jpg": "cat", f"{train}/dog/2.JPEG": "dog"},
        "valid": {f"{valid}/cat/3.png": "cat"},
        "test": {f"{test}/dog/4.jpg": "dog"},
    }


def test_folders_without_splits_are_classes(tmp_path: Path) -> None:
    root = _touch(tmp_path, ["dog/1.jpg", "cat/1.jpg", "cat/close/2.jpg"])
    found = read_class_folders(root)
    assert not found.has_splits
    assert _labels(root) == {
        "train": {"cat/1.jpg": "cat", "cat/close/2.jpg": "cat", "dog/1.jpg": "dog"}
    }


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    root = _touch(tmp_path, ["bus/1.jpg", "car/1.jpg", "train/1.jpg"])
    assert set(_labels(root)["train"].values()) == {"bus", "car", "train"}
    assert read_class_folders(root).notes == ["train/ is read as a class, not as a split"]


def test_a_folder_of_annotations_is_not_read_as_a_class(tmp_path: Path) -> None:
    root = _touch(tmp_path, ["bus/1.jpg", "car/1.jpg", "train/annotations.jsonl"])
    assert read_class_folders(root).notes == [
        "skipped folders without images: train/",
        "skipped files: 1 .jsonl",
    ]


def test_class_names_are_exact(tmp_path: Path) -> None:
    root = _touch(tmp_path, ["Shoe/1.jpg", "Shoe /1.jpg", "007/1.jpg", "caf\u00e9/1.jpg"])
    assert set(_labels(root)["train"].values()) == {"Shoe", "Shoe ", "007", "caf\u00e9"}


def test_images_with_linked_files_and_folders_are_named_by_the_link(tmp_path: Path) -> None:
    _touch(tmp_path / "cache", ["00ff", "more/2.jpg"])
    root = _touch(tmp_path / "root", ["cat/1.jpg"])
    (root / "dog").mkdir()
    (root / "dog" / "1.jpg").symlink_to(tmp_path / "cache" / "00ff")
    (root / "fox").symlink_to(tmp_path / "cache" / "more")
    (root / "fox-loop").symlink_to(root / "fox-loop")
    assert list(_labels(root)["train"]) == ["cat/1.jpg", "dog/1.jpg", "fox/2.jpg"]


def test_a_link_to_another_class_folder_gives_no_second_label(tmp_path: Path) -> None:
    root = _touch(tmp_path, ["cat/1.jpg", "dog/1.jpg"])
    (root / "copy").symlink_to("cat")
    (root / "dog" / "more").symlink_to("../cat")
    (root / "dog" / "up").symlink_to("..")
    (root / "here").symlink_to(".")
    assert _labels(root)["train"] == {"cat/1.jpg": "cat", "dog/1.jpg": "dog"}
    assert read_class_folders(root).notes == [
        "skipped links without further images: copy/, here/",
        "skipped files: 4 link to a folder that is searched anyway",
    ]


def test_a_split_may_be_a_link_to_another_split(tmp_path: Path) -> None:
    root = _touch(tmp_path, ["train/cat/1.jpg", "train/dog/1.jpg", "test/cat/2.jpg"])
    (root / "valid").symlink_to("test")
    assert _labels(root)["valid"] == {"valid/cat/2.jpg": "cat"}


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", ".cache"])
def test_folders_that_systems_make_are_no_classes(tmp_path: Path, name: str) -> None:
    root = _touch(tmp_path, ["cat/1.jpg", "dog/1.jpg", f"{name}/a.jpg", f"cat/{name}/1.jpg"])
    assert set(_labels(root)["train"]) == {"cat/1.jpg", "dog/1.jpg"}
    assert read_class_folders(root).notes == ["skipped files: 2 hidden"]


def test_the_group_of_an_image_is_its_roboflow_source(tmp_path: Path) -> None:
    root = _touch(tmp_path, ["cat/a_jpg.rf.01.jpg", "dog/b.jpg"])
    records = read_class_folders(root).records["train"]
    assert [record.group for record in records] == ["a_jpg", None]


def test_skipped_files_and_folders_are_noted(tmp_path: Path) -> None:
    root = _touch(
        tmp_path,
        [
            "train/cat/1.jpg",
            "train/cat/notes.txt",
            "train/cat/._1.jpg",
            "train/dog/1.jpg",
            "train/.cache/1.jpg",
            "train/loose.jpg",
            "train/readme.md",
            "valid/cat/2.jpg",
            "backup/cat/3.jpg",
        ],
    )
    (root / "train" / "fox").mkdir()
    assert read_class_folders(root).notes == [
        "train/: skipped 1 image(s) outside of class folders",
        "train/: skipped folders without images: fox/",
        "train/: skipped files: 2 hidden, 1 .md, 1 .txt",
        "skipped backup/ next to the split folders",
    ]
    assert set(_labels(root)) == {"train", "valid"}


def test_an_unlabeled_test_folder_is_skipped(tmp_path: Path) -> None:
    root = _touch(tmp_path, ["train/cat/1.jpg", "train/dog/1.jpg", "test/1.jpg"])
    found = read_class_folders(root)
    assert set(found.records) == {"train"}
    assert "skipped test/ next to the split folders" in found.notes


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "no images in class folders; expected ROOT/train/CLASS/image.jpg or ROOT/CLASS"),
        (["1.jpg", "2.jpg"], "no images in class folders(.|\n)*skipped 2 image.s. outside of"),
        (["cat/notes.txt"], "no images in class folders(.|\n)*without images: cat/"),
        (["cat/1.jpg"], "one class, cat/; expected"),
        (["pets/cat/1.jpg", "pets/dog/1.jpg"], "one class, pets/; did you mean .*/pets?"),
        (["pets/train/cat/1.jpg", "pets/valid/cat/2.jpg"], "did you mean .*/pets?"),
        (["images/1.jpg", "train.jsonl"], "one class, images/; annotations such as train.jsonl "),
        (["train/1.jpg", "valid/1.jpg"], "train/, valid/ has images, but no class folders"),
        (["train/1.jpg", "test/1.jpg", "more/1.jpg"], "test/, train/ has images, but no class"),
        (["valid/cat/1.jpg", "test/cat/1.jpg"], "there is test/, valid/, but no train split"),
        (["train/1.jpg", "valid/cat/1.jpg"], r"no train split \(train/ has no class folders\)"),
        (["train/cat/1.jpg", "val/cat/1.jpg", "valid/cat/1.jpg"], "val/ and valid/ are both the"),
        (
            ["train/2021/1.jpg", "bus/1.jpg", "car/1.jpg"],
            "train/ looks like a split, and bus/",
        ),
        (["ca\nt/1.jpg", "dog/1.jpg"], "class folder .* has a control character; rename it"),
    ],
)
def test_folders_that_are_no_classes_are_named(
    tmp_path: Path, files: list[str], expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        read_class_folders(_touch(tmp_path, files))


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    root = _touch(tmp_path, ["cat/1.jpg", os.fsdecode(b"dog/\xff.jpg")])
    with pytest.raises(DataError, match="not valid UTF-8; rename the file") as caught:
        read_class_folders(root)
    str(caught.value).encode()
