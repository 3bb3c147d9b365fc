"""Hostile input of converters, unwritable targets, and interruptions."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cls_data.annotations.reading import read_split
from cls_data.cli.main import main
from cls_data.convert import annotation_writer
from cls_data.convert.csv_annotations import convert_csv
from cls_data.convert.image_folder import convert_image_folder
from cls_data.convert.roboflow import convert_roboflow
from cls_data.errors import DataError


def make_class_folders(root: Path, splits: tuple[str, ...] = ("train", "valid", "test")) -> Path:
    for split in splits:
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            (root / split / label / "1.png").write_bytes(label.encode())
    return root


def test_class_folders_may_hold_anything(tmp_path: Path) -> None:
    root = make_class_folders(tmp_path / "root", ("train", "valid"))
    folder = root / "train" / "a"
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.jpg").symlink_to("nowhere")
    (folder / "._1.png").touch()
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "2.JFIF").touch()
    (folder / "notes.txt").touch()
    (folder / "table").touch()
    (folder / "loop").symlink_to(root)
    (root / "train" / "a again").symlink_to(folder)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").touch()
    (root / "train" / "c").symlink_to(tmp_path / "elsewhere")
    result = convert_image_folder(root)
    assert [record.id for record in read_split(root, "train")] == [
        "train/a/1.png",
        "train/a/folder.png/2.JFIF",
        "train/b/1.png",
        "train/c/1.png",
    ]
    (note,) = [note for note in result.notes if note.startswith("Skipped files")]
    for text in ("1 device, pipe, or socket", "1 broken link", "1 .txt", "1 without a suffix"):
        assert text in note


@pytest.mark.parametrize("kind", ["pipe", "folder", "huge", "missing"])
def test_tables_that_cannot_be_read_are_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / "train").mkdir()
    table = tmp_path / "train" / "_classes.csv"
    if kind == "pipe":
        os.mkfifo(table)
    elif kind == "folder":
        table.mkdir()
    elif kind == "huge":
        table.touch()
        os.truncate(table, 10**12)
    with pytest.raises(DataError) as caught:
        convert_csv(tmp_path, table)
    assert str(table) in str(caught.value)
    if kind in ("pipe", "huge"):
        with pytest.raises(DataError, match=r"_classes\.csv: cannot be read"):
            convert_csv(tmp_path, table)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"PK\x03\x04\0\xff", r"t\.csv: a workbook or an archive, not CSV"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r"t\.csv: not a text file"),
        (b"\xff" * 1000, r"t\.csv:1: not UTF-8"),
        (b"x" * 100_000, "valid names: x{60}$"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"t\.csv:1: no column 'image'"),
    ],
)
def test_files_that_are_no_tables_are_named(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        convert_csv(tmp_path, tmp_path / "t.csv")
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("kind", ["file", "link", "pipe"])
def test_target_that_is_no_folder_is_named_before_anything_is_written(
    tmp_path: Path, kind: str
) -> None:
    root = make_class_folders(tmp_path, ("Training", "Val"))
    if kind == "file":
        (root / "train").touch()
    elif kind == "link":
        (root / "train").symlink_to("nowhere")
    else:
        os.mkfifo(root / "train")
    with pytest.raises(DataError, match="train: not a folder"):
        convert_image_folder(root)
    assert not (root / "valid").exists()


@pytest.mark.parametrize("convert", [convert_image_folder, convert_roboflow])
def test_interrupted_conversion_is_finished_by_the_same_command(
    tmp_path: Path, convert: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(convert)
    root = make_class_folders(tmp_path)
    write = annotation_writer.write_atomically
    written = []

    def fail(path: Path, content: bytes) -> None:
        if len(written) == number:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    monkeypatch.setattr(annotation_writer, "write_atomically", fail)
    for number in (0, 1, 2):
        with pytest.raises(KeyboardInterrupt):
            convert(root)
        assert len(written) == number
        assert not (root / "train" / "annotations.jsonl").exists()
    number = 3
    assert convert(root).row_counts == {"train": 2, "valid": 2, "test": 2}
    assert len(written) == 3


def test_classes_without_splits_can_be_converted_again(tmp_path: Path) -> None:
    root = make_class_folders(tmp_path, (".",))
    (root / "train").mkdir()  # left by an interrupted conversion
    for _ in range(2):
        result = convert_image_folder(root)
        assert result.row_counts == {"train": 2}
        assert result.notes == ("No valid split; create one with `cls-data split`",)


@pytest.mark.faults
def test_killed_conversion_is_finished_by_the_same_command(tmp_path: Path) -> None:
    root = make_class_folders(tmp_path)
    code = (
        "import os, sys\n"
        "from cls_data.convert.image_folder import convert_image_folder\n"
        "replace = os.replace\n"
        "def kill(source, target):\n"
        "    if 'valid' in str(target):\n"
        f"        os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "    replace(source, target)\n"
        "os.replace = kill\n"
        "convert_image_folder(sys.argv[1])"
    )
    result = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True)
    assert result.returncode == -signal.SIGKILL
    assert len(list((root / "valid").glob(".*.draft"))) == 1
    assert not (root / "train" / "annotations.jsonl").exists()
    assert main(["convert", str(root), "--from", "image-folder"]) == 0
    assert not list(root.rglob("*.draft"))
    assert len(read_split(root, "valid")) == 2


def test_full_disk_ends_in_one_message_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_class_folders(tmp_path)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(os, "fsync", fail)
        assert main(["convert", str(root), "--from", "image-folder"]) == 1
    target = root / "test" / "annotations.jsonl"
    assert capsys.readouterr().err == f"cls-data: {target}: No space left on device\n"
    assert not list(root.rglob("*.jsonl"))
    assert not list(root.rglob("*.draft"))
    assert main(["convert", str(root), "--from", "image-folder"]) == 0


def test_names_from_data_are_escaped_in_messages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_class_folders(tmp_path, ("train",))
    (root / "train" / "a" / "x.\x1b[31m").touch()
    (root / "train" / "\x1b[2J").mkdir()
    (root / "train" / "\x1b[2J" / "1.png").touch()
    assert main(["convert", str(root), "--from", "image-folder"]) == 2
    (root / "train" / "\x1b[2J" / "1.png").unlink()
    assert main(["convert", str(root), "--from", "image-folder"]) == 0
    output = capsys.readouterr()
    assert "1 .\\x1b[31m" in output.out
    assert "\x1b" not in output.out + output.err
