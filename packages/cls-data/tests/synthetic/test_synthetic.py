import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cls_data import DataError, SyntheticNumbers, read_split
from cls_data.synthetic.rendered_folder import replace_folder, write_manifest
from cls_data.synthetic.top_up import top_up


def small_numbers(seed: int = 0) -> SyntheticNumbers:
    return SyntheticNumbers(classes=("0", "23"), train=3, valid=2, test=1, seed=seed)


def contents(root: Path) -> dict[str, bytes]:
    files = {}
    for path in root.rglob("*"):
        if path.is_file():
            files[path.relative_to(root).as_posix()] = path.read_bytes()
    return files


def jpeg_contents(root: Path) -> list[bytes]:
    return [content for name, content in contents(root).items() if name.endswith(".jpg")]


def test_write_gives_equal_images_for_equal_seeds_only(tmp_path: Path) -> None:
    small_numbers().write(tmp_path / "a")
    small_numbers().write(tmp_path / "b")
    small_numbers(seed=1).write(tmp_path / "c")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    first = "train/images/000000.jpg"
    assert contents(tmp_path / "a")[first] != contents(tmp_path / "c")[first]


def test_written_splits_have_the_configured_counts(tmp_path: Path) -> None:
    small_numbers().write(tmp_path / "set")
    train = read_split(tmp_path / "set", "train")
    assert len(train) == 6
    assert len(read_split(tmp_path / "set", "valid")) == 4
    assert len(read_split(tmp_path / "set", "test")) == 2
    assert {record.label for record in train} == {"0", "23"}


def test_splits_share_no_image(tmp_path: Path) -> None:
    small_numbers().write(tmp_path / "set")
    images = jpeg_contents(tmp_path / "set")
    assert len(images) == 12
    assert len(set(images)) == 12


def test_write_renders_again_only_when_settings_change(tmp_path: Path) -> None:
    small_numbers().write(tmp_path / "set")
    stamp = (tmp_path / "set" / "synthetic.json").stat().st_mtime_ns
    small_numbers().write(tmp_path / "set")
    assert (tmp_path / "set" / "synthetic.json").stat().st_mtime_ns == stamp
    small_numbers(seed=1).write(tmp_path / "set")
    assert json.loads((tmp_path / "set" / "synthetic.json").read_text())["seed"] == 1


def test_write_rejects_a_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(DataError, match=r"because the folder contains precious\.txt"):
        small_numbers().write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("foreign", ["notes.txt", "train/real.jsonl", "train/images/mine.jpg"])
def test_write_with_changed_settings_never_deletes_foreign_files(
    tmp_path: Path, foreign: str
) -> None:
    small_numbers().write(tmp_path / "set")
    (tmp_path / "set" / foreign).write_text("mine")
    small_numbers().write(tmp_path / "set")  # same settings, so nothing is rendered
    with pytest.raises(DataError, match=f"the folder contains {foreign}"):
        small_numbers(seed=1).write(tmp_path / "set")
    assert (tmp_path / "set" / foreign).read_text() == "mine"


def test_crop_is_small_and_has_contrast() -> None:
    crop = small_numbers().render("23", (0, 0, 0))
    assert 20 <= crop.width <= 64
    assert 34 <= crop.height <= 64
    assert np.asarray(crop.convert("L")).std() > 10


@pytest.mark.parametrize(
    ("label", "key", "size", "luma"),
    [
        ("23", (0, 0, 0), (46, 59), [[127, 127, 127], [133, 140, 141], [131, 131, 130]]),
        ("0", (1, 2, 3), (44, 51), [[204, 189, 210], [176, 169, 205], [197, 179, 210]]),
        ("30", (2, 11, 39), (54, 61), [[28, 44, 40], [47, 103, 61], [25, 28, 26]]),
    ],
)
def test_crops_are_the_same_in_every_release(
    label: str, key: tuple[int, ...], size: tuple[int, int], luma: list[list[int]]
) -> None:
    # Versions of Pillow differ by up to three levels. For a larger change, increase
    # RENDERER_VERSION.
    crop = SyntheticNumbers().render(label, key)
    assert crop.size == size
    thirds = np.asarray(crop.convert("L").resize((3, 3), Image.Resampling.BOX))
    np.testing.assert_allclose(thirds, luma, atol=3)


def write_real_images(root: Path, counts: dict[str, int]) -> Path:
    """Write a training split of single-color images."""
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


def test_top_up_adds_rendered_rows_for_rare_classes(tmp_path: Path) -> None:
    root = write_real_images(tmp_path, {"0": 1, "00": 3, "23": 5, "": 1, "1234": 2, "x": 1})
    real = contents(root)
    result = top_up(root, 4)
    assert result.rendered == {"0": 3, "00": 1}
    assert result.total == 4
    assert result.skipped == ("", "1234", "x")
    assert train_counts(root) == {"0": 4, "00": 4, "23": 5, "": 1, "1234": 2, "x": 1}
    assert real.items() <= contents(root).items()
    rendered = []
    for record in read_split(root, "train"):
        if record.source.startswith("train/synthetic/"):
            assert record.metadata["source"] == "synthetic"
            rendered.append(record.id)
    assert rendered == [f"train/synthetic/images/{number:06d}.jpg" for number in range(4)]


@settings(max_examples=15, deadline=None)
@given(
    counts=st.dictionaries(
        st.sampled_from(["", "0", "00", "7", "23", "023", "9999", "²"]),
        st.integers(1, 4),
        min_size=1,
    ),
    targets=st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
def test_last_top_up_determines_the_rows_of_every_number(
    counts: dict[str, int], targets: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = write_real_images(Path(folder), counts)
        for target in targets:
            result = top_up(root, target)
        after = train_counts(root)
        for label, count in counts.items():
            expected = count if label in ("", "9999", "²") else max(count, targets[-1])
            assert after[label] == expected
            assert (label in result.skipped) == (expected < targets[-1])


def test_equal_top_ups_give_equal_bytes_and_are_rendered_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        top_up(write_real_images(tmp_path / name, {"0": 1, "23": 2}), 3)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    stamp = (tmp_path / "a/train/synthetic/synthetic.json").stat().st_mtime_ns
    assert top_up(tmp_path / "a", 3) == top_up(tmp_path / "b", 3)
    assert (tmp_path / "a/train/synthetic/synthetic.json").stat().st_mtime_ns == stamp
    top_up(tmp_path / "b", 3, seed=1)
    first = "train/synthetic/images/000000.jpg"
    assert contents(tmp_path / "a")[first] != contents(tmp_path / "b")[first]


def test_top_up_with_a_larger_target_keeps_the_crops_of_the_smaller_one(tmp_path: Path) -> None:
    root = write_real_images(tmp_path, {"0": 1, "23": 1})
    top_up(root, 2)
    few = set(jpeg_contents(root))
    top_up(root, 4)
    many = set(jpeg_contents(root))
    assert few < many
    assert len(many) == 6
    top_up(root, 1)
    assert sorted(path.name for path in (root / "train").iterdir()) == [
        "0.png",
        "1.png",
        "annotations.jsonl",
    ]
    assert [path.name for path in root.iterdir()] == ["train"]


def test_top_up_follows_changes_of_the_real_rows(tmp_path: Path) -> None:
    root = write_real_images(tmp_path, {"0": 1, "23": 3})
    top_up(root, 3)
    annotations = root / "train/annotations.jsonl"
    annotations.write_text(annotations.read_text() + '{"image": "1.png", "suffix": "0"}\n')
    assert top_up(root, 3).rendered == {"0": 1}
    assert train_counts(root) == {"0": 3, "23": 3}


def test_interrupted_top_up_keeps_the_previous_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_real_images(tmp_path, {"0": 1, "23": 1})
    top_up(root, 2)
    before = contents(root)

    def interrupt(folder: Path, manifest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cls_data.synthetic.top_up.write_manifest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        top_up(root, 4)
    assert contents(root) == before


def test_top_up_of_some_classes_rejects_unknown_classes(tmp_path: Path) -> None:
    root = write_real_images(tmp_path, {"0": 1, "23": 1, "24": 1})
    assert top_up(root, 2, classes=["24"]).rendered == {"24": 1}
    with pytest.raises(DataError, match="no training row has class '42'; did you mean '24'"):
        top_up(root, 2, classes=["24", "42"])


@pytest.mark.parametrize("foreign", ["mine.jsonl", "annotations.jsonl", "images/000000.jpg"])
def test_top_up_rejects_a_folder_it_did_not_write(tmp_path: Path, foreign: str) -> None:
    root = write_real_images(tmp_path, {"0": 1, "23": 1})
    file = root / "train/synthetic" / foreign
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(DataError, match=f"the folder contains {foreign}"):
        top_up(root, 2)
    assert file.read_text() == "mine"


def test_top_up_never_deletes_foreign_files(tmp_path: Path) -> None:
    root = write_real_images(tmp_path, {"0": 1, "23": 1})
    top_up(root, 2)
    (root / "train/synthetic/notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"the folder contains notes\.txt"):
        top_up(root, 3)
    assert train_counts(root) == {"0": 2, "23": 2}


def test_top_up_rejects_a_symbolic_link(tmp_path: Path) -> None:
    root = write_real_images(tmp_path / "set", {"0": 1, "23": 1})
    (tmp_path / "elsewhere").mkdir()
    (root / "train/synthetic").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="the folder is a link or a file"):
        top_up(root, 2)


@pytest.mark.parametrize(
    ("target", "seed", "message"),
    [
        (0, 0, "target must be at least 1, got 0"),
        (-3, 0, "target must be at least 1, got -3"),
        (2, -1, "seed must be at least 0, got -1"),
    ],
)
def test_top_up_rejects_target_or_seed_out_of_range(
    tmp_path: Path, target: int, seed: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        top_up(write_real_images(tmp_path, {"0": 1}), target, seed=seed)


def test_top_up_rejects_a_dataset_without_real_training_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        top_up(tmp_path / "nowhere", 2)
    with pytest.raises(DataError, match="no real training rows"):
        top_up(tmp_path, 2)


_RENDER_ENDLESSLY = """
import sys
from pathlib import Path
from cls_data import SyntheticNumbers
numbers = SyntheticNumbers(classes=("0", "23"), train=1_000_000, valid=2, test=1)
numbers.write(Path(sys.argv[1]))
"""


def test_the_draft_of_a_killed_process_is_removed_by_the_next_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _RENDER_ENDLESSLY, str(tmp_path / "numbers")]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".numbers.*.draft/numbers/train/images/*.jpg")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
    assert not (tmp_path / "numbers").exists()
    small_numbers().write(tmp_path / "numbers")
    assert [path.name for path in tmp_path.iterdir()] == ["numbers"]


def test_an_equal_folder_that_another_process_wrote_meanwhile_is_kept(tmp_path: Path) -> None:
    with replace_folder(tmp_path / "numbers", tmp_path) as draft:
        write_manifest(draft, {"kind": "a", "seed": 1})
        (tmp_path / "numbers").mkdir()
        write_manifest(tmp_path / "numbers", {"kind": "a", "seed": 1})
        kept = (tmp_path / "numbers").stat().st_ino
    assert (tmp_path / "numbers").stat().st_ino == kept
    assert [path.name for path in tmp_path.iterdir()] == ["numbers"]
