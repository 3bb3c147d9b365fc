import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cls_data.annotations.reading import Record, Split
from cls_data.errors import DataError
from cls_data.splits.folder_split import (
    FolderSplit,
    read_split_record,
    split_records,
    write_split_record,
)

Splits = Mapping[Split, Sequence[Record]]


def _records(folder: Path, counts: Mapping[str, int], start: int = 0) -> list[Record]:
    """Write files with different bytes, and return their rows."""
    records = []
    for label, count in counts.items():
        for number in range(start, start + count):
            name = f"{label}/{number}.jpg"
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
            records.append(Record(name, str(folder), label, None, {}, name))
    return records


def _split_of_image(splits: Splits) -> dict[str, Split]:
    by_image = {}
    for split, records in splits.items():
        for record in records:
            by_image[record.id] = split
    return by_image


def _counts(splits: Splits) -> dict[str, Counter[str]]:
    return {split: Counter(row.label for row in rows) for split, rows in splits.items()}


def test_every_class_is_split_by_the_shares(tmp_path: Path) -> None:
    records = _records(tmp_path, {"cat": 100, "dog": 20, "fox": 10})
    splits = split_records(records, FolderSplit(valid=0.2, test=0.1), with_test=True)
    assert _counts(splits) == {
        "train": {"cat": 70, "dog": 14, "fox": 7},
        "valid": {"cat": 20, "dog": 4, "fox": 2},
        "test": {"cat": 10, "dog": 2, "fox": 1},
    }


@pytest.mark.parametrize(
    ("count", "expected"), [(1, "100"), (2, "110"), (3, "111"), (4, "211"), (10, "811")]
)
def test_small_classes_are_in_train_then_in_valid_then_in_test(
    tmp_path: Path, count: int, expected: str
) -> None:
    records = _records(tmp_path, {"cat": count, "dog": 9})
    counts = _counts(split_records(records, FolderSplit(), with_test=True))
    assert "".join(str(counts[name]["cat"]) for name in ("train", "valid", "test")) == expected


def test_no_test_split_is_made_beside_split_folders(tmp_path: Path) -> None:
    records = _records(tmp_path, {"cat": 20, "dog": 20})
    assert set(split_records(records, FolderSplit(), with_test=False)) == {"train", "valid"}
    assert set(split_records(records, FolderSplit(test=0), with_test=True)) == {"train", "valid"}


@given(st.randoms(use_true_random=False), st.integers(0, 3))
def test_the_split_depends_on_the_images_and_its_seed_alone(
    tmp_path_factory: pytest.TempPathFactory, shuffler: random.Random, seed: int
) -> None:
    counts = {"cat": 12, "dog": 7}
    records = _records(tmp_path_factory.mktemp("one"), counts)
    moved = _records(tmp_path_factory.mktemp("other"), counts)
    shuffler.shuffle(moved)
    settings = FolderSplit(seed=seed)
    splits = _split_of_image(split_records(records, settings, with_test=True))
    assert splits == _split_of_image(split_records(moved, settings, with_test=True))


def test_another_split_seed_gives_another_split(tmp_path: Path) -> None:
    records = _records(tmp_path, {"cat": 50, "dog": 50})
    one = split_records(records, FolderSplit(seed=0), with_test=True)
    other = split_records(records, FolderSplit(seed=1), with_test=True)
    assert _split_of_image(one) != _split_of_image(other)


def test_few_images_move_when_others_are_added_and_never_between_valid_and_test(
    tmp_path: Path,
) -> None:
    records = _records(tmp_path, {"cat": 200, "dog": 200})
    before = _split_of_image(split_records(records, FolderSplit(), with_test=True))
    more = records + _records(tmp_path, {"cat": 20, "dog": 20}, start=200)
    after = _split_of_image(split_records(more, FolderSplit(), with_test=True))
    moves = [{before[name], after[name]} for name in before if before[name] != after[name]]
    assert len(moves) <= 8
    assert all("train" in move for move in moves)


def test_no_recorded_image_moves_when_others_are_added(tmp_path: Path) -> None:
    records = _records(tmp_path, {"cat": 40, "dog": 40})
    splits = split_records(records, FolderSplit(), with_test=True)
    file = tmp_path / "split.jsonl"
    write_split_record(file, splits)
    before = _split_of_image(splits)
    assert read_split_record(file) == before

    more = records + _records(tmp_path, {"cat": 60, "dog": 5, "fox": 10}, start=40)
    settings = FolderSplit(record=file, seed=7)
    after = _split_of_image(split_records(more, settings, with_test=True))
    assert {name: after[name] for name in before} == before
    assert {split for name, split in after.items() if name.startswith("fox")} == {
        "train",
        "valid",
        "test",
    }


def test_a_recorded_test_split_is_ignored_beside_a_test_folder(tmp_path: Path) -> None:
    records = _records(tmp_path, {"cat": 20, "dog": 20})
    file = tmp_path / "split.jsonl"
    write_split_record(file, {"test": records[:10], "valid": records[10:30]})
    splits = split_records(records, FolderSplit(record=file), with_test=False)
    assert set(splits) == {"train", "valid"}
    assert {record.id for record in records[10:30]} <= {record.id for record in splits["valid"]}


def test_copies_and_groups_stay_together(tmp_path: Path) -> None:
    records = _records(tmp_path, {"cat": 30, "dog": 30})
    for number in range(0, 60, 3):
        records[number].path.write_bytes(records[number + 1].path.read_bytes())
    grouped = []
    for number, record in enumerate(records):
        group = f"game{number % 12}" if number % 3 == 2 else None
        grouped.append(Record(record.id, record.root, record.label, group, {}, record.source))
    by_image = _split_of_image(split_records(grouped, FolderSplit(), with_test=True))
    for number in range(0, 60, 3):
        assert by_image[records[number].id] == by_image[records[number + 1].id]
    for game in range(2, 12, 3):
        members = [record.id for record in grouped if record.group == f"game{game}"]
        assert len({by_image[name] for name in members}) == 1
    assert set(by_image.values()) == {"train", "valid", "test"}


def test_a_large_group_does_not_fill_a_small_split(tmp_path: Path) -> None:
    records = []
    for record in _records(tmp_path, {"cat": 60, "dog": 20}):
        group = "all" if record.label == "cat" and len(records) < 40 else None
        records.append(Record(record.id, record.root, record.label, group, {}, record.source))
    counts = _counts(split_records(records, FolderSplit(), with_test=True))
    assert counts["train"]["cat"] >= 40
    assert counts["valid"]["cat"] <= 7


def test_train_has_every_class_of_mixed_groups(tmp_path: Path) -> None:
    """One image in two class folders belongs to both classes."""
    records = _records(tmp_path, {"cat": 6, "dog": 6})
    for number in range(6):
        records[number].path.write_text(f"same {number}")
        records[number + 6].path.write_text(f"same {number}")
    counts = _counts(split_records(records, FolderSplit(), with_test=True))
    assert set(counts["train"]) == {"cat", "dog"}


def test_classes_of_one_image_are_in_train_only(tmp_path: Path) -> None:
    records = _records(tmp_path, {"cat": 1, "dog": 1})
    assert set(split_records(records, FolderSplit(), with_test=True)) == {"train"}


@pytest.mark.parametrize(
    "line",
    [
        "x",
        '{"image": "a.jpg"}',
        '{"image": "a.jpg", "split": "val"}',
        "[]",
        "\x1b",
        "x" * 1_500_000,
    ],
    ids=lambda line: line[:30],
)
def test_an_invalid_record_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "split.jsonl"
    file.write_text(f'{{"image": "a.jpg", "split": "valid"}}\n{line}\n')
    with pytest.raises(DataError, match=r"split\.jsonl:2: not the split of an image"):
        read_split_record(file)


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jsonl: cannot be read \(No such file"):
        read_split_record(tmp_path / "gone.jsonl")


@pytest.mark.parametrize(
    "settings",
    [
        {"valid": 0},
        {"valid": 1},
        {"valid": 0.5, "test": 0.5},
        {"test": -0.1},
        {"seed": -1},
        {"valid": float("nan")},
    ],
)
def test_invalid_shares_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        FolderSplit(**settings)
