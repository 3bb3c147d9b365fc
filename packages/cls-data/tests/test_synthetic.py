import json
from pathlib import Path

import numpy as np
import pytest

from cls_data import DataError, SyntheticNumbers, read_split


def small(seed: int = 0) -> SyntheticNumbers:
    return SyntheticNumbers(classes=("0", "23"), train=3, valid=2, test=1, seed=seed)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_set_is_the_same_for_the_same_seed_and_another_for_another(tmp_path: Path) -> None:
    small().write(tmp_path / "a")
    small().write(tmp_path / "b")
    small(seed=1).write(tmp_path / "c")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")["train/images/000000.jpg"] != contents(tmp_path / "c")["train/images/000000.jpg"]


def test_a_set_is_read_back_with_its_counts(tmp_path: Path) -> None:
    small().write(tmp_path / "set")
    counts = {split: len(read_split(tmp_path / "set", split)) for split in ("train", "valid", "test")}
    assert counts == {"train": 6, "valid": 4, "test": 2}
    assert {record.label for record in read_split(tmp_path / "set", "train")} == {"0", "23"}


def test_splits_share_no_image(tmp_path: Path) -> None:
    small().write(tmp_path / "set")
    images = [content for name, content in contents(tmp_path / "set").items() if name.endswith(".jpg")]
    assert len(set(images)) == len(images) == 12


def test_a_whole_set_is_not_rendered_again_and_changed_settings_replace_it(tmp_path: Path) -> None:
    small().write(tmp_path / "set")
    stamp = (tmp_path / "set" / "synthetic.json").stat().st_mtime_ns
    small().write(tmp_path / "set")
    assert (tmp_path / "set" / "synthetic.json").stat().st_mtime_ns == stamp
    small(seed=1).write(tmp_path / "set")
    assert json.loads((tmp_path / "set" / "synthetic.json").read_text())["seed"] == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(DataError, match="neither empty nor a synthetic set alone"):
        small().write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("foreign", ["notes.txt", "train/real.jsonl", "train/images/mine.jpg"])
def test_a_changed_setting_does_not_cost_files_that_were_put_beside(tmp_path: Path, foreign: str) -> None:
    small().write(tmp_path / "set")
    (tmp_path / "set" / foreign).write_text("mine")
    small().write(tmp_path / "set")  # the same set: nothing to render
    with pytest.raises(DataError, match=f"it holds {foreign}"):
        small(seed=1).write(tmp_path / "set")
    assert (tmp_path / "set" / foreign).read_text() == "mine"


def test_a_crop_is_small_and_shows_ink_on_cloth() -> None:
    crop = small().render("23", (0, 0, 0))
    assert 20 <= crop.width <= 64
    assert 34 <= crop.height <= 64
    assert np.asarray(crop.convert("L")).std() > 10
