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
