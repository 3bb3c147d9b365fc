"""A root that is read in the wrong layout, or lacks a split: messages that name the way out."""

from pathlib import Path
from typing import Any

import pytest

from cls_data import (
    ClassificationDataModule,
    DataError,
    DataModuleConfig,
    GateConfig,
    read_records,
)
from cls_data.cli.main import main
from cls_data.data_source import scan_data

ROW = '{"image": "images/0.png", "suffix": "1"}\n'


def _annotate(root: Path, picture: Any, splits: tuple[str, ...]) -> Path:
    """Write annotations of images in a subfolder, as no class folders have."""
    for number, split in enumerate(splits):
        images = root / split / "images"
        images.mkdir(parents=True)
        picture(number).save(images / "0.png")
        (root / split / "annotations.jsonl").write_text(ROW)
    return root


def _message(root: Path, preprocessing: Any, **settings: Any) -> str:
    """Return the error before training."""
    config = DataModuleConfig(root=root, decode_workers=1, **settings)
    with pytest.raises(DataError) as error:
        ClassificationDataModule(config, preprocessing).prepare_data()
    return str(error.value)


@pytest.mark.parametrize("is_flat", [False, True], ids=["images/", "next to the annotations"])
def test_data_folder_on_annotations_points_to_jsonl(
    tmp_path: Path, picture: Any, preprocessing: Any, is_flat: bool
) -> None:
    root = _annotate(tmp_path, picture, ("train", "valid"))
    if is_flat:
        for split in ("train", "valid"):
            (root / split / "images/0.png").rename(root / split / "0.png")
            (root / split / "images").rmdir()
    message = _message(root, preprocessing, layout="folder")
    assert "there are annotations (*.jsonl); use data=jsonl" in message
    assert "\n" not in message


@pytest.mark.parametrize("gate", [GateConfig(), None])
@pytest.mark.parametrize(("existing", "missing"), [("valid", "train"), ("train", "valid")])
def test_annotations_without_train_or_valid_are_refused_in_one_line(
    tmp_path: Path, picture: Any, existing: str, missing: str, gate: GateConfig | None
) -> None:
    root = _annotate(tmp_path, picture, (existing, "test"))
    config = DataModuleConfig(root=root, gate=gate)
    with pytest.raises(DataError) as error:
        read_records(config)
    assert str(error.value) == (f"{root}: no {missing}/ folder; training needs train/ and valid/")


def test_a_missing_split_is_named_before_the_gate(
    tmp_path: Path, picture: Any, preprocessing: Any
) -> None:
    root = _annotate(tmp_path, picture, ("valid",))
    assert "no train/ folder; training needs" in _message(root, preprocessing)
    (root / "folds/0").mkdir(parents=True)
    (root / "valid").rename(root / "folds/0/valid")
    message = _message(root, preprocessing, annotations="folds/0")
    assert message.startswith(f"{root}/folds/0: no train/ folder")


def test_a_missing_root_may_have_annotations_or_class_folders(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", "/nope"]) == 2
    assert "*.jsonl files, or class folders" in capsys.readouterr().err


@pytest.mark.parametrize(("annotated", "other"), [("train", "valid"), ("valid", "train")])
@pytest.mark.parametrize("layout", ["auto", "jsonl"])
def test_annotations_in_some_class_folders_only_are_named(
    split_pets: Path, annotated: str, other: str, layout: Any
) -> None:
    (split_pets / "val").rename(split_pets / "valid")
    (split_pets / annotated / "notes.jsonl").write_text(ROW)
    with pytest.raises(DataError) as error:
        scan_data(split_pets, layout=layout)
    assert f"{annotated}/ has annotations (*.jsonl), but {other}/" in str(error.value)
    assert "only class folders" in str(error.value)
    assert "data=folder" in str(error.value)


def test_train_annotations_next_to_class_folders_without_valid_name_both(
    split_pets: Path, preprocessing: Any
) -> None:
    (split_pets / "val").rename(split_pets / "other")
    (split_pets / "train/notes.jsonl").write_text(ROW)
    message = _message(split_pets, preprocessing)
    assert "no valid/ folder" in message
    assert "class folders, which data=folder reads" in message


@pytest.mark.parametrize("command", ["check", "stats", "split", "preview"])
def test_commands_read_the_layout_that_is_given(
    split_pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (split_pets / "train/notes.jsonl").write_text(ROW)
    arguments = [command, str(split_pets)]
    if command == "preview":
        arguments += ["--out", str(tmp_path / "out"), "--augmentation", "none"]
    assert main(arguments) == 2
    assert "--layout folder" in capsys.readouterr().err
    assert main([*arguments, "--layout", "folder"]) == 0


def test_annotations_cannot_be_combined_with_class_folders(
    pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stats", str(pets), "--layout", "folder", "--annotations", "a"]) == 2
    assert "cannot be combined" in capsys.readouterr().err


def test_the_gate_advises_the_layout_that_was_read(split_pets: Path, preprocessing: Any) -> None:
    (split_pets / "train/cat/damaged.png").write_bytes(b"nothing")
    assert "--layout" not in _message(split_pets, preprocessing, layout="folder")
    (split_pets / "train/notes.jsonl").write_text(ROW)
    assert "--layout folder --quarantine" in _message(split_pets, preprocessing, layout="folder")


def test_advice_on_bad_rows_names_the_subfolder_of_annotations(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "folds").mkdir()
    (root / "train").rename(root / "folds/train")
    (root / "folds/train/annotations.jsonl").write_text("{}\n")
    assert main(["stats", str(root), "--annotations", "folds"]) == 2
    assert f"cls-data check {root} --annotations folds --quarantine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "value", "suggestion"),
    [
        (["convert", "x", "--from"], "csvv", "csv"),
        (["check", "x", "--layout"], "folders", "folder"),
        (["preview", "x", "--augmentation"], "photos", "photo"),
    ],
)
def test_a_misspelled_value_gets_a_suggestion(
    capsys: pytest.CaptureFixture[str], command: list[str], value: str, suggestion: str
) -> None:
    assert main([*command, value]) == 2
    assert f"did you mean '{suggestion}'?" in capsys.readouterr().err


def test_stats_counts_one_class(write_split: Any, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_split("train", ["1", "1"])
    assert main(["stats", str(root)]) == 0
    assert "1 class;" in capsys.readouterr().out


def test_check_reports_a_missing_train_once(
    tmp_path: Path, picture: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root = _annotate(tmp_path, picture, ("valid", "test"))
    assert main(["check", str(root)]) == 1
    output = capsys.readouterr().out
    assert output.count("train has no valid row") == 1
    assert "does not occur in train" not in output
