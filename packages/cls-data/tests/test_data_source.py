"""Class folders through every feature that reads annotations."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cls_data import (
    ClassificationDataModule,
    DataError,
    DataModuleConfig,
    DatasetStatistics,
    FolderSplit,
    GateConfig,
    Quarantine,
    check,
    read_records,
    read_split,
)
from cls_data.cli.main import main
from cls_data.data_source import read_data, scan_data
from cls_data.splits.folder_split import read_split_record
from cls_data.splits.splitting import write_folds, write_splits
from cls_data.synthetic.top_up import top_up


@pytest.fixture
def pets(tmp_path: Path, picture: Any) -> Path:
    """Return class folders without splits: 30 cats and 20 dogs."""
    root = tmp_path / "pets"
    for number in range(50):
        label = "cat" if number < 30 else "dog"
        file = root / label / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(file)
    return root


@pytest.fixture
def split_pets(pets: Path) -> Path:
    """Return the same images in split folders."""
    for number, file in enumerate(sorted(pets.rglob("*.png"))):
        split = ("train", "train", "train", "val", "testing")[number % 5]
        target = pets / split / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    (pets / "cat").rmdir()
    (pets / "dog").rmdir()
    return pets


def _config(root: Path, **settings: Any) -> DataModuleConfig:
    return DataModuleConfig(
        root=root, layout="folder", batch_size=4, eval_batch_size=8, decode_workers=1, **settings
    )


def _ids(root: Path, **settings: Any) -> dict[str, list[str]]:
    records = read_records(_config(root, **settings))
    return {split: sorted(row.id for row in rows) for split, rows in records.items()}


def test_folders_without_splits_are_split_and_recorded(
    pets: Path, tmp_path: Path, preprocessing: Any
) -> None:
    data = ClassificationDataModule(_config(pets), preprocessing)
    data.prepare_data()
    data.setup()
    assert data.splits == ("train", "valid", "test")
    assert data.classes == ("cat", "dog")
    assert [len(data.records(split)) for split in data.splits] == [40, 5, 5]
    assert data.report is not None
    assert data.report.notes == ("split the images by class: 40 train, 5 valid, 5 test",)
    assert data.report.fingerprint == data.fingerprint

    data.write_split_record(tmp_path / "split.jsonl")
    recorded = read_split_record(tmp_path / "split.jsonl")
    assert len(recorded) == 50
    assert {recorded[record.id] for record in data.records("valid")} == {"valid"}


def test_the_split_does_not_depend_on_the_seed_of_the_run(pets: Path) -> None:
    assert _ids(pets, seed=1) == _ids(pets, seed=2)
    assert _ids(pets, split=FolderSplit(seed=1)) != _ids(pets, split=FolderSplit(seed=2))


def test_split_folders_are_read_as_they_are(split_pets: Path) -> None:
    ids = _ids(split_pets)
    assert {split: len(names) for split, names in ids.items()} == {
        "train": 30,
        "valid": 10,
        "test": 10,
    }
    assert all(name.startswith("val/") for name in ids["valid"])


def test_valid_is_made_from_train_if_it_is_missing(split_pets: Path) -> None:
    before = _ids(split_pets)
    for file in sorted((split_pets / "val").rglob("*.png")):
        file.unlink()
    after = _ids(split_pets)
    assert after["test"] == before["test"]
    assert sorted(after["train"] + after["valid"]) == before["train"]
    assert len(after["valid"]) == 3


def test_the_gate_checks_class_folders_and_its_quarantine_removes_images(
    pets: Path, tmp_path: Path, preprocessing: Any
) -> None:
    before = _ids(pets)
    damaged = before["train"][0]
    (pets / damaged).write_bytes(b"damaged")
    report = check(pets, preprocessing, GateConfig(absent_classes="off"))
    assert report.findings["damaged_images"][0].text.startswith(f"{damaged}: cannot be decoded")
    assert report.write_quarantine(tmp_path / "left-out.jsonl") == 1

    after = _ids(pets, quarantine=tmp_path / "left-out.jsonl")
    assert after == before | {"train": before["train"][1:]}
    quarantine = Quarantine.load(tmp_path / "left-out.jsonl")
    assert check(pets, preprocessing, quarantine=quarantine).passed

    (pets / damaged).write_bytes(b"changed")
    with pytest.raises(DataError, match=f"{damaged}: this quarantined image changed"):
        _ids(pets, quarantine=tmp_path / "left-out.jsonl")
    (pets / damaged).unlink()
    with pytest.raises(DataError, match=r"1 quarantined row\(s\) do not exist"):
        _ids(pets, quarantine=tmp_path / "left-out.jsonl")


def test_one_image_in_two_class_folders_is_found(
    pets: Path, picture: Any, preprocessing: Any
) -> None:
    picture(0).save(pets / "dog" / "copy.png")
    findings = check(pets, preprocessing).findings
    assert set(findings) == {"conflicting_labels"}
    assert "one image with the labels 'cat', 'dog'" in findings["conflicting_labels"][0].text


def test_decoding_names_a_damaged_image_once(pets: Path, preprocessing: Any) -> None:
    (pets / "cat" / "0.png").write_bytes(b"damaged")
    data = ClassificationDataModule(_config(pets, gate=None), preprocessing)
    with pytest.raises(DataError, match=r"\n  cat/0\.png: (?!cat/0)"):
        data.setup()


def test_a_store_is_shared_by_runs_on_class_folders(
    pets: Path, tmp_path: Path, preprocessing: Any
) -> None:
    config = _config(pets, store=tmp_path / "store", gate=None)
    fingerprints = set()
    for _ in range(2):
        data = ClassificationDataModule(config, preprocessing)
        data.setup()
        fingerprints.add(data.fingerprint)
    assert len(fingerprints) == 1
    assert len(list((tmp_path / "store").iterdir())) == 3


def test_folds_redistribute_class_folders(pets: Path) -> None:
    folds = [_ids(pets, fold=fold, folds=3) for fold in range(3)]
    valid = [name for fold in folds for name in fold["valid"]]
    assert len(valid) == len(set(valid)) == 45
    assert folds[0]["test"] == folds[1]["test"] == _ids(pets)["test"]


def test_a_class_named_synthetic_is_no_rendered_folder(split_pets: Path) -> None:
    (split_pets / "train" / "dog").rename(split_pets / "train" / "synthetic")
    (split_pets / "val" / "dog").rename(split_pets / "val" / "synthetic")
    (split_pets / "testing" / "dog").rename(split_pets / "testing" / "synthetic")
    folds = [_ids(split_pets, fold=fold, folds=2) for fold in range(2)]
    assert len(folds[0]["valid"]) + len(folds[1]["valid"]) == 40


def test_class_weights_and_sampling_weights_name_the_folders(
    pets: Path, preprocessing: Any
) -> None:
    settings = {"sampler": "weighted", "sampling_weights": {"cat": 1, "dog": 3}, "gate": None}
    data = ClassificationDataModule(_config(pets, **settings), preprocessing)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert len(batch["images"]) == 4
    assert data.class_counts().tolist() == [24, 16]


@pytest.mark.parametrize("has_splits", [True, False])
def test_written_splits_of_class_folders_are_annotations(
    pets: Path, split_pets: Path, has_splits: bool, tmp_path: Path
) -> None:
    del pets
    root = split_pets if has_splits else split_pets / "train"
    num_images = len(list(root.rglob("*.png")))
    (name,) = write_splits(root).names
    rows = []
    for split in ("train", "valid", "test"):
        rows += read_split(root, split, annotations=name)
    assert len(rows) == num_images
    assert {record.label for record in rows} == {"cat", "dog"}
    assert len(write_folds(root, 2).names) == 2
    assert sum(map(len, read_data(root).values())) == num_images


def test_keep_test_needs_a_test_folder(pets: Path) -> None:
    with pytest.raises(DataError, match="no test split to keep"):
        write_splits(pets, keep_test=True)


def test_statistics_count_class_folders(split_pets: Path) -> None:
    statistics = DatasetStatistics.read(split_pets)
    assert statistics.classes == ("cat", "dog")
    assert statistics.total("train") == 30


@pytest.mark.parametrize("command", ["check", "stats", "preview", "split"])
def test_commands_accept_class_folders(
    pets: Path,
    tmp_path: Path,
    command: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"check": ["--workers", "1"], "preview": ["--augmentation", "light"]}
    assert main([command, str(pets), *options.get(command, [])]) == 0
    output = capsys.readouterr().out
    if command == "check":
        assert "split the images by class: 40 train, 5 valid, 5 test" in output


def test_annotations_take_precedence_over_class_folders(root: Path) -> None:
    records = read_data(root)
    assert records["train"][0].source == "train/annotations.jsonl:1"


def test_jsonl_on_class_folders_points_to_the_folder_layout(pets: Path) -> None:
    config = DataModuleConfig(root=pets, layout="jsonl")
    with pytest.raises(DataError, match="train on them with data=folder instead of data=jsonl"):
        read_records(config)


def test_a_recorded_split_keeps_images_where_they_are(
    pets: Path, picture: Any, tmp_path: Path, preprocessing: Any
) -> None:
    data = ClassificationDataModule(_config(pets, gate=None), preprocessing)
    data.setup()
    data.write_split_record(tmp_path / "split.jsonl")
    before = _ids(pets)
    for number in range(50, 80):
        picture(number).save(pets / "dog" / f"{number}.png")
    after = _ids(pets, split=FolderSplit(record=tmp_path / "split.jsonl"))
    for split, names in before.items():
        assert set(names) <= set(after[split])


def test_no_record_is_written_for_annotations(
    root: Path, tmp_path: Path, preprocessing: Any
) -> None:
    config = DataModuleConfig(root=root, gate=None, decode_workers=1)
    data = ClassificationDataModule(config, preprocessing)
    data.setup()
    data.write_split_record(tmp_path / "split.jsonl")
    assert not (tmp_path / "split.jsonl").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"layout": "folder", "annotations": "folds/0"},
        {"layout": "jsonl", "split": {"seed": 1}},
        {"layout": "folders"},
        {"layout": "folder", "split": {"sed": 1}},
    ],
)
def test_settings_of_the_other_layout_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DataModuleConfig(root="x", **settings)


def test_class_folders_are_not_topped_up_but_pointed_to_their_conversion(pets: Path) -> None:
    with pytest.raises(DataError, match=rf"convert them first: cls-data convert {pets} --from"):
        top_up(pets, 40)


@pytest.mark.parametrize(
    ("name", "split"), [("val", "valid"), ("Validation", "valid"), ("testing", "test")]
)
def test_annotations_in_a_folder_that_is_not_read_are_named(
    tmp_path: Path, write_set: Any, picture: Any, name: str, split: str
) -> None:
    rows = [("a.png", picture(0), "1"), ("b.png", picture(1), "2")]
    root = write_set(tmp_path, {"train": rows, split: rows})
    (root / split).rename(root / name)
    with pytest.raises(DataError, match=f"{name}: has annotations, .*rename it to {split}/"):
        scan_data(root)
    (root / split).symlink_to(name)
    assert set(scan_data(root).splits) == {"train", split}


def test_a_split_that_is_not_needed_is_noted(split_pets: Path, preprocessing: Any) -> None:
    report = check(split_pets, preprocessing, split=FolderSplit(seed=1))
    assert "data.split has no effect, because there is a valid folder" in report.notes


def test_copies_of_one_image_leave_nothing_for_valid(tmp_path: Path, picture: Any) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(4):
            picture(len(label)).save(tmp_path / label / f"{number}.png")
    with pytest.raises(
        DataError, match="no image is left for valid, because the images of a class"
    ):
        read_records(_config(tmp_path))


@pytest.mark.parametrize("name", ["gone", "file"])
def test_a_root_that_is_no_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=f"{name}: no such folder; expected"):
        read_records(_config(tmp_path / name))


@pytest.mark.parametrize("layout", ["folder", "jsonl"])
def test_findings_about_hostile_names_have_no_control_characters(
    tmp_path: Path, picture: Any, write_set: Any, preprocessing: Any, layout: str
) -> None:
    names = [f"\x1b[2J\u202e{number}.png" for number in range(3)]
    if layout == "folder":
        for label in ("cat", "dog"):
            (tmp_path / label).mkdir()
            for name in names:
                picture(0).save(tmp_path / label / name)
    else:
        rows = [(name, picture(0), label) for name in names for label in ("cat", "dog")]
        write_set(tmp_path, {"train": rows})
        annotations = tmp_path / "train" / "annotations.jsonl"
        annotations.rename(annotations.with_name("\x1b[2J.jsonl"))
    (finding,) = check(tmp_path, preprocessing).findings["conflicting_labels"]
    assert "\x1b" not in finding.text
    assert "\u202e" not in finding.text
    assert finding.text.count(r"\x1b[2J") >= 2


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
