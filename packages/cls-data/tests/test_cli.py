"""Tests of the `cls-data` commands on small folders."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cls_data import read_split
from cls_data.augmentation.preview import PIPELINES
from cls_data.cli.main import main
from cls_data.cli.preview import AUGMENTATIONS


def hash_files(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def conflict(root: Path) -> Path:
    """A data root in which one training image has two labels."""
    with (root / "train" / "annotations.jsonl").open("a") as stream:
        stream.write('{"image": "0.png", "suffix": "2"}\n')
    return root


def test_check_reports_rows_and_does_not_change_the_data(
    conflict: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hash_files(conflict)
    out = tmp_path.parent / f"{tmp_path.name}-out"
    outputs = [
        "--quarantine",
        f"{out}/q.jsonl",
        "--json",
        f"{out}/f.json",
        "--pictures",
        f"{out}/pictures",
    ]
    assert main(["check", str(conflict), "--workers", "1", *outputs]) == 1
    output = capsys.readouterr().out
    assert "conflicting_labels (1)" in output
    assert "train/annotations.jsonl:1" in output
    assert "FAILED: 1 error," in output
    assert json.loads((out / "f.json").read_text())["passed"] is False
    with Image.open(out / "pictures" / "conflicting_labels.png") as picture:
        assert picture.width > 100
    assert hash_files(conflict) == before
    assert main(["check", str(conflict), "--without", f"{out}/q.jsonl"]) == 0


def test_check_settings_override_the_config_file(
    conflict: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gate.yaml").write_text("conflicting_labels: off\nrare_class_under: 3\n")
    config = ["--config", str(tmp_path / "gate.yaml")]
    assert main(["check", str(conflict), *config]) == 0
    assert main(["check", str(conflict), *config, "--set", "conflicting_labels=error"]) == 1
    assert main(["check", str(conflict), "--set", "conflicting_labels=warn"]) == 0
    assert "1 warnings" not in capsys.readouterr().err


def test_check_accepts_images_up_to_the_limit_that_is_set(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(root), "--workers", "1", "--max-pixels", "287"]) == 1
    expected = "12x24 px is over the limit of 287 pixels (preprocessing.max_pixels)"
    assert expected in capsys.readouterr().out.replace("\n", "")
    assert main(["check", str(root), "--workers", "1", "--max-pixels", "288"]) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "conflicting_label=warn"], "unknown gate setting 'conflicting_label'"),
        (["--set", "conflicting_labels"], "expected KEY=VALUE"),
        (["--set", "imbalance=loud"], "imbalance: Input should be 'error', 'warn' or 'off'"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: cannot be read (No such file"),
        (["--without", "nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        (["--annotations", "folds/0"], "no such folder inside the data root"),
    ],
)
def test_check_explains_invalid_arguments(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main(["check", str(root), *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_split_writes_splits_and_folds_that_can_be_read(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["split", str(root), "--shares", "0.6,0.2,0.2", "--seed", "3", "--name", "mine"]) == 0
    )
    assert main(["split", str(root), "--folds", "3"]) == 0
    assert "data.annotations=folds/0" in capsys.readouterr().out
    rows = {
        split: len(read_split(root, split, annotations="mine"))
        for split in ("train", "valid", "test")
    }
    assert sum(rows.values()) == 45
    assert rows["train"] > 20
    validated = [
        record.id
        for fold in range(3)
        for record in read_split(root, "valid", annotations=f"folds/{fold}")
    ]
    assert sorted(validated) == sorted(set(validated))
    assert len(validated) == 45


@pytest.mark.parametrize("shares", ["a,b", "1", "0.5,0.2,0.2,0.1"])
def test_split_rejects_invalid_shares(
    root: Path, capsys: pytest.CaptureFixture[str], shares: str
) -> None:
    assert main(["split", str(root), "--shares", shares]) == 2
    assert f"--shares {shares}: expected" in capsys.readouterr().err


def test_convert_writes_annotations_for_class_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        for label in ("7", "07"):
            (tmp_path / split / label).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / label / "a.png")
    assert main(["convert", str(tmp_path), "--from", "image-folder"]) == 0
    assert {record.label for record in read_split(tmp_path, "valid")} == {"7", "07"}
    assert "2 rows" in capsys.readouterr().out
    assert main(["convert", str(tmp_path), "--from", "csv"]) == 2


def add_metadata(root: Path) -> None:
    """Add metadata to the training rows."""
    file = root / "train" / "annotations.jsonl"
    rows = file.read_text().replace("}", ', "metadata": {"camera": "left", "court [/x]": 1}}')
    file.write_text(rows)


def test_stats_prints_tables_and_draws_a_picture(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    add_metadata(root)
    picture = tmp_path / "classes.png"
    assert main(["stats", str(root), "--by", "court [/x]", "--picture", str(picture)]) == 0
    output = capsys.readouterr().out
    assert "train by court [/x]" in output
    with Image.open(picture) as image:
        assert image.width > 200


@pytest.mark.parametrize(
    ("key", "expected"),
    [("camra", "did you mean 'camera'?"), ("game", "Valid names: camera"), ("", "camera")],
)
def test_stats_names_the_metadata_keys_near_an_unknown_one(
    root: Path, capsys: pytest.CaptureFixture[str], key: str, expected: str
) -> None:
    assert main(["stats", str(root), "--by", key]) == 2
    assert "the rows have no metadata" in capsys.readouterr().err
    add_metadata(root)
    assert main(["stats", str(root), "--by", key]) == 2
    output = capsys.readouterr()
    assert f"--by {key}: no row has this key" in output.err
    assert expected.lower() in output.err.lower()
    assert output.out == ""


def test_synth_renders_a_dataset_and_rare_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    assert main(["synth", str(root), "--classes", "7"]) == 2
    assert "expected two or more" in capsys.readouterr().err
    assert main(["synth", str(root), "--classes", "7,23"]) == 0
    before = len(read_split(root, "train"))
    assert main(["synth", str(root), "--classes", "23", "--up-to", str(before // 2 + 5)]) == 0
    assert len(read_split(root, "train")) == before + 5


def test_preview_draws_originals_next_to_eight_versions(root: Path, tmp_path: Path) -> None:
    assert (
        main(["preview", str(root), "--out", str(tmp_path / "p"), "--images", "3", "--size", "32"])
        == 0
    )
    for name in ("none", "light", "broadcast", "photo"):
        with Image.open(tmp_path / "p" / f"{name}.png") as picture:
            assert picture.size == (9 * 96 + 6, 3 * 96)


def test_preview_without_a_folder_says_where_it_wrote(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    assert main(["preview", str(root), "--augmentation", "none", "--images", "1"]) == 0
    written = Path(capsys.readouterr().out.removeprefix("Wrote ").strip())
    assert written.is_absolute()
    assert written.is_file()
    shutil.rmtree(written.parent)
    assert not list(Path.cwd().iterdir())


def test_preview_lists_every_augmentation() -> None:
    assert list(AUGMENTATIONS) == list(PIPELINES)


def test_commands_name_a_missing_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("check", "stats", "preview", "split"):
        assert main([command, str(tmp_path / "nowhere")]) == 2
        assert "nowhere: no such folder" in capsys.readouterr().err


COMMANDS = ("check", "convert", "split", "stats", "synth", "preview")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(command in output for command in COMMANDS)
    assert "Examples:" in output
    assert "Exit codes:" in output


@pytest.mark.parametrize("command", COMMANDS)
def test_command_help_describes_root_examples_and_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "data root" in output
    assert "(default: None)" not in output
    assert f"Examples: cls-data {command} " in output
    assert "Exit codes: 0 success, 1" in output


def test_cls_data_script_is_installed() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="cls-data")
    loaded: Any = script.load()
    assert loaded is main


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["check", "--without", "a", "--quarantine", "b"], "drop one of them"),
        (["split", "--folds", "3", "--shares", "0.5,0.5"], "drop --shares"),
        (
            ["convert", "--from", "image-folder", "--label-column", "x"],
            "--label-column requires --from csv",
        ),
    ],
)
def test_commands_reject_conflicting_options(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main([arguments[0], str(root), *arguments[1:]]) == 2
    assert expected in capsys.readouterr().err


def test_check_rejects_a_quarantine_for_other_annotations(
    conflict: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path.parent / f"{tmp_path.name}-q.jsonl"
    assert main(["check", str(conflict), "--quarantine", str(rows)]) == 1
    assert main(["split", str(conflict), "--name", "mine"]) == 0
    assert main(["check", str(conflict), "--annotations", "mine", "--without", str(rows)]) == 2
    assert "are not in the annotations in use (mine/)" in capsys.readouterr().err
