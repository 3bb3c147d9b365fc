import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cls_data import DataError, SyntheticNumbers, read_split
from cls_data.synthetic.top_up import top_up


def small(seed: int = 0) -> SyntheticNumbers:
    return SyntheticNumbers(classes=("0", "23"), train=3, valid=2, test=1, seed=seed)


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_a_set_is_the_same_for_the_same_seed_and_another_for_another(tmp_path: Path) -> None:
    small().write(tmp_path / "a")
    small().write(tmp_path / "b")
    small(seed=1).write(tmp_path / "c")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert (
        contents(tmp_path / "a")["train/images/000000.jpg"]
        != contents(tmp_path / "c")["train/images/000000.jpg"]
    )


def test_a_set_is_read_back_with_its_counts(tmp_path: Path) -> None:
    small().write(tmp_path / "set")
    counts = {
        split: len(read_split(tmp_path / "set", split)) for split in ("train", "valid", "test")
    }
    assert counts == {"train": 6, "valid": 4, "test": 2}
    assert {record.label for record in read_split(tmp_path / "set", "train")} == {"0", "23"}


def test_splits_share_no_image(tmp_path: Path) -> None:
    small().write(tmp_path / "set")
    images = [
        content for name, content in contents(tmp_path / "set").items() if name.endswith(".jpg")
    ]
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
def test_a_changed_setting_does_not_cost_files_that_were_put_beside(
    tmp_path: Path, foreign: str
) -> None:
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


@pytest.mark.parametrize(
    ("label", "draw", "size", "luma"),
    [
        ("23", (0, 0, 0), (46, 59), [[127, 127, 127], [133, 140, 141], [131, 131, 130]]),
        ("0", (1, 2, 3), (44, 51), [[204, 189, 210], [176, 169, 205], [197, 179, 210]]),
        ("30", (2, 11, 39), (54, 61), [[28, 44, 40], [47, 103, 61], [25, 28, 26]]),
    ],
)
def test_a_seed_gives_the_crops_that_it_always_gave(
    label: str, draw: tuple[int, ...], size: tuple[int, int], luma: list[list[int]]
) -> None:
    # Three levels of tolerance: another Pillow may draw another edge. Anything more is another recipe.
    crop = SyntheticNumbers().render(label, draw)
    assert crop.size == size
    thirds = np.asarray(crop.convert("L").resize((3, 3), Image.Resampling.BOX))
    np.testing.assert_allclose(thirds, luma, atol=3)


def real_set(root: Path, counts: dict[str, int]) -> Path:
    """Write a training split of one-color images."""
    folder = root / "train"
    folder.mkdir(parents=True)
    labels = [label for label, count in counts.items() for _ in range(count)]
    for number in range(len(labels)):
        Image.new("RGB", (4, 6), (number % 256, number // 256, 0)).save(folder / f"{number}.png")
    rows = [{"image": f"{number}.png", "suffix": label} for number, label in enumerate(labels)]
    (folder / "annotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def train_counts(root: Path) -> dict[str, int]:
    return dict(Counter(record.label for record in read_split(root, "train")))


def test_rare_classes_get_rendered_rows_beside_the_real_ones(tmp_path: Path) -> None:
    root = real_set(tmp_path, {"0": 1, "00": 3, "23": 5, "": 1, "1234": 2, "x": 1})
    real = contents(root)
    done = top_up(root, 4)
    assert done.rendered == {"0": 3, "00": 1}
    assert done.total == 4
    assert done.skipped == ("", "1234", "x")
    assert train_counts(root) == {"0": 4, "00": 4, "23": 5, "": 1, "1234": 2, "x": 1}
    assert real.items() <= contents(root).items()
    rendered = [
        record
        for record in read_split(root, "train")
        if record.source.startswith("train/synthetic/")
    ]
    assert [record.id for record in rendered] == [
        f"train/synthetic/images/{number:06d}.jpg" for number in range(4)
    ]
    assert {record.metadata["source"] for record in rendered} == {"synthetic"}


@settings(max_examples=15, deadline=None)
@given(
    counts=st.dictionaries(
        st.sampled_from(["", "0", "00", "7", "23", "023", "9999", "²"]),
        st.integers(1, 4),
        min_size=1,
    ),
    targets=st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
def test_after_any_top_ups_every_number_has_what_the_last_one_asked_for(
    counts: dict[str, int], targets: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = real_set(Path(folder), counts)
        for target in targets:
            done = top_up(root, target)
        after = train_counts(root)
        for label, count in counts.items():
            expected = count if label in ("", "9999", "²") else max(count, targets[-1])
            assert after[label] == expected
            assert (label in done.skipped) == (expected < targets[-1])


def test_the_same_top_up_is_not_rendered_twice_and_gives_the_same_bytes_elsewhere(
    tmp_path: Path,
) -> None:
    for name in ("a", "b"):
        top_up(real_set(tmp_path / name, {"0": 1, "23": 2}), 3)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    stamp = (tmp_path / "a/train/synthetic/synthetic.json").stat().st_mtime_ns
    assert top_up(tmp_path / "a", 3) == top_up(tmp_path / "b", 3)
    assert (tmp_path / "a/train/synthetic/synthetic.json").stat().st_mtime_ns == stamp
    top_up(tmp_path / "b", 3, seed=1)
    first = "train/synthetic/images/000000.jpg"
    assert contents(tmp_path / "a")[first] != contents(tmp_path / "b")[first]


def test_another_target_replaces_the_folder_and_keeps_the_crops_that_both_have(
    tmp_path: Path,
) -> None:
    root = real_set(tmp_path, {"0": 1, "23": 1})
    top_up(root, 2)
    small_ones = {content for name, content in contents(root).items() if name.endswith(".jpg")}
    top_up(root, 4)
    large_ones = {content for name, content in contents(root).items() if name.endswith(".jpg")}
    assert small_ones < large_ones
    assert len(large_ones) == 6
    top_up(root, 1)
    assert sorted(path.name for path in (root / "train").iterdir()) == [
        "0.png",
        "1.png",
        "annotations.jsonl",
    ]
    assert [path.name for path in root.iterdir()] == ["train"]


def test_a_top_up_follows_the_real_rows_when_they_change(tmp_path: Path) -> None:
    root = real_set(tmp_path, {"0": 1, "23": 3})
    top_up(root, 3)
    annotations = root / "train/annotations.jsonl"
    annotations.write_text(annotations.read_text() + '{"image": "1.png", "suffix": "0"}\n')
    assert top_up(root, 3).rendered == {"0": 1}
    assert train_counts(root) == {"0": 3, "23": 3}


def test_an_interrupted_top_up_leaves_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = real_set(tmp_path, {"0": 1, "23": 1})
    top_up(root, 2)
    before = contents(root)

    def interrupted(folder: Path, manifest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cls_data.synthetic.top_up.write_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        top_up(root, 4)
    assert contents(root) == before


def test_a_top_up_of_some_classes_leaves_the_others(tmp_path: Path) -> None:
    root = real_set(tmp_path, {"0": 1, "23": 1, "24": 1})
    assert top_up(root, 2, classes=["24"]).rendered == {"24": 1}
    with pytest.raises(DataError, match=r"no training row has the class '42'; the nearest is '24'"):
        top_up(root, 2, classes=["24", "42"])


@pytest.mark.parametrize("foreign", ["mine.jsonl", "annotations.jsonl", "images/000000.jpg"])
def test_a_folder_that_no_top_up_wrote_is_left_alone(tmp_path: Path, foreign: str) -> None:
    root = real_set(tmp_path, {"0": 1, "23": 1})
    file = root / "train/synthetic" / foreign
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(DataError, match=f"it holds {foreign}"):
        top_up(root, 2)
    assert file.read_text() == "mine"


def test_a_file_that_was_put_into_a_top_up_is_not_lost(tmp_path: Path) -> None:
    root = real_set(tmp_path, {"0": 1, "23": 1})
    top_up(root, 2)
    (root / "train/synthetic/notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"it holds notes\.txt"):
        top_up(root, 3)
    assert train_counts(root) == {"0": 2, "23": 2}


def test_a_link_in_place_of_the_folder_is_left_alone(tmp_path: Path) -> None:
    root = real_set(tmp_path / "set", {"0": 1, "23": 1})
    (tmp_path / "elsewhere").mkdir()
    (root / "train/synthetic").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="it is not rendered over"):
        top_up(root, 2)


@pytest.mark.parametrize(("target", "seed"), [(0, 0), (-3, 0), (2, -1)])
def test_a_target_or_seed_out_of_range_is_refused(tmp_path: Path, target: int, seed: int) -> None:
    with pytest.raises(DataError, match="the target is a number from 1"):
        top_up(real_set(tmp_path, {"0": 1}), target, seed=seed)


def test_a_set_without_real_training_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        top_up(tmp_path / "nowhere", 2)
    with pytest.raises(DataError, match="no real training rows"):
        top_up(tmp_path, 2)
