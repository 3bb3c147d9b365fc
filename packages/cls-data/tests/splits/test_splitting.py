import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cls_data.annotations.quarantine import Quarantine, write_quarantine
from cls_data.annotations.reading import SPLITS, Record, Split, read_split
from cls_data.errors import DataError
from cls_data.splits.splitting import SplitResult, select_fold, write_folds, write_splits
from cls_data.splits.stratification import stratify_groups

_shares = st.lists(st.sampled_from([0.8, 0.1, 0.5, 1.0, 3.0]), min_size=1, max_size=5)
_seeds = st.integers(0, 3)
_rows = st.lists(
    st.tuples(st.sampled_from(["0", "00", "", "7"]), st.none() | st.sampled_from("abcdefgh")),
    max_size=60,
)


def _write(root: Path, split: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows, each with its own image unless it names one."""
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"image": f"{number}.png", **row} for number, row in enumerate(rows)]
    for line in lines:
        (folder / line["image"]).write_bytes(str(folder / line["image"]).encode())
    (folder / "annotations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def _read(root: Path, written: SplitResult) -> dict[str, list[Record]]:
    """Read the written annotation files, by folder, and compare them with the counts."""
    splits: tuple[Split, ...] = ("train", "valid", "test")
    by_folder = {
        f"{name}/{split}": read_split(root, split, annotations=name)
        for name in written.names
        for split in splits
    }
    by_folder = {folder: records for folder, records in by_folder.items() if records}
    assert {
        folder: Counter(record.label for record in records) for folder, records in by_folder.items()
    } == written.counts
    return by_folder


def _ids(records: Sequence[Record]) -> list[str]:
    return sorted(record.id for record in records)


@given(_rows, _shares, _seeds)
def test_stratify_groups_keeps_groups_together(
    rows: list[tuple[str, str | None]], shares: list[float], seed: int
) -> None:
    labels, groups = [label for label, _ in rows], [group for _, group in rows]
    parts = stratify_groups(labels, groups, shares, seed)
    assert len(parts) == len(rows)
    assert set(parts) <= set(range(len(shares)))
    named = {(group, part) for group, part in zip(groups, parts, strict=True) if group is not None}
    assert len(named) == len({group for group, _ in named})
    assert parts == stratify_groups(labels, groups, shares, seed)


@given(_rows, _shares, _seeds)
def test_stratify_groups_puts_classes_with_enough_groups_into_subset_0(
    rows: list[tuple[str, str | None]], shares: list[float], seed: int
) -> None:
    parts = stratify_groups(
        [label for label, _ in rows], [group for _, group in rows], shares, seed
    )
    holders = defaultdict(set)
    for number, (label, group) in enumerate(rows):
        holders[label].add(group or number)
    first = {label for (label, _), part in zip(rows, parts, strict=True) if part == 0}
    assert {label for label, groups in holders.items() if len(groups) >= len(shares)} <= first


@given(_rows, _shares, _seeds, st.randoms(use_true_random=False))
def test_stratify_groups_ignores_the_order_of_grouped_rows(
    rows: list[tuple[str, str | None]], shares: list[float], seed: int, shuffler: random.Random
) -> None:
    rows = [(label, group or "z") for label, group in rows]
    shuffled = shuffler.sample(rows, len(rows))
    there = stratify_groups(
        [label for label, _ in rows], [group for _, group in rows], shares, seed
    )
    back = stratify_groups(
        [label for label, _ in shuffled], [group for _, group in shuffled], shares, seed
    )
    assert dict(zip(rows, there, strict=True)) == dict(zip(shuffled, back, strict=True))


@given(st.lists(st.sampled_from(["0", "00", "1"]), max_size=80), _shares, _seeds)
def test_stratify_groups_follows_the_shares_for_ungrouped_rows(
    labels: list[str], shares: list[float], seed: int
) -> None:
    parts = stratify_groups(labels, [None] * len(labels), shares, seed)
    for label, total in Counter(labels).items():
        counts = Counter(part for name, part in zip(labels, parts, strict=True) if name == label)
        expected = [total * share / sum(shares) for share in shares]
        # A subset exceeds its share by less than one row, so others can lack a row each.
        assert all(counts[part] < expected[part] + 1 + 1e-9 for part in range(len(shares)))
        assert all(
            counts[part] > expected[part] - max(len(shares) - 1, 1) - 1e-9
            for part in range(len(shares))
        )
        if total >= len(shares):
            assert len(counts) == len(shares)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=25), _shares, _seeds)
def test_stratify_groups_exceeds_a_share_by_less_than_the_largest_group(
    sizes: list[int], shares: list[float], seed: int
) -> None:
    groups = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    counts = Counter(stratify_groups(["a"] * len(groups), groups, shares, seed))
    for part, share in enumerate(shares):
        assert counts[part] < len(groups) * share / sum(shares) + max(sizes) + 1e-9


@pytest.mark.parametrize(("games", "within"), [(20, 0.1), (200, 0.01)])
def test_stratify_groups_approximates_the_shares_for_mixed_groups(
    games: int, within: float
) -> None:
    draw = random.Random(0)
    labels = [str(int(draw.expovariate(0.1))) for _ in range(4000)]
    groups = [str(draw.randrange(games)) for _ in labels]
    counts = Counter(stratify_groups(labels, groups, [0.8, 0.1, 0.1], 0))
    assert [counts[part] / 4000 for part in range(3)] == pytest.approx([0.8, 0.1, 0.1], abs=within)


def test_stratify_groups_adds_a_missing_class_to_subset_0() -> None:
    assert sorted(stratify_groups(list("dacd"), list("vvzz"), [1, 3], 0)) == [0, 0, 1, 1]


def test_stratify_groups_depends_on_the_seed() -> None:
    assignments = [
        stratify_groups(["a", "b"] * 20, [None] * 40, [0.5, 0.5], seed) for seed in range(2)
    ]
    assert assignments[0] != assignments[1]


@pytest.mark.parametrize(
    "shares", [[], [0.5, 0.0], [1.0, -1.0], [float("nan")], [float("inf"), 1.0]]
)
def test_stratify_groups_rejects_invalid_shares(shares: list[float]) -> None:
    with pytest.raises(DataError, match="expected a positive number"):
        stratify_groups(["a"], [None], shares, 0)


@pytest.fixture
def games(tmp_path: Path) -> Path:
    """Return a root with 60 training and 20 validation rows of 20 games."""
    rows = [
        {
            "suffix": ["00", "", "1", "0"][number % 4],
            "group": f"game {number // 4}",
            "metadata": {"number": number},
        }
        for number in range(80)
    ]
    _write(tmp_path, "valid", rows[60:])
    return _write(tmp_path, "train", rows[:60])


def test_write_splits_keeps_every_row_once_and_unchanged(games: Path) -> None:
    before = [(games / split / "annotations.jsonl").read_bytes() for split in ("train", "valid")]
    written = write_splits(games, seed=3)
    by_folder = _read(games, written)
    assert written.names == ("splits/seed-3",)
    assert {folder.rpartition("/")[2]: len(records) for folder, records in by_folder.items()} == {
        "train": 64,
        "valid": 8,
        "test": 8,
    }
    old = [*read_split(games, "train"), *read_split(games, "valid")]
    rows = {
        (row.id, row.label, row.group, str(row.metadata))
        for records in by_folder.values()
        for row in records
    }
    assert rows == {(row.id, row.label, row.group, str(row.metadata)) for row in old}
    folders = {
        (record.group, folder) for folder, records in by_folder.items() for record in records
    }
    assert len(folders) == 20
    assert before == [
        (games / split / "annotations.jsonl").read_bytes() for split in ("train", "valid")
    ]
    assert (
        '"image": "../../../train/' in (games / "splits/seed-3/train/annotations.jsonl").read_text()
    )


def test_write_folds_puts_each_row_into_valid_of_one_fold(games: Path) -> None:
    written = write_folds(games, 4)
    by_folder = _read(games, written)
    all_ids = _ids([*read_split(games, "train"), *read_split(games, "valid")])
    assert written.names == ("folds/0", "folds/1", "folds/2", "folds/3")
    assert (
        _ids([record for name in written.names for record in by_folder[f"{name}/valid"]]) == all_ids
    )
    for name in written.names:
        assert (
            sorted(_ids(by_folder[f"{name}/train"]) + _ids(by_folder[f"{name}/valid"])) == all_ids
        )
        assert len(by_folder[f"{name}/valid"]) == 20
        groups = [
            {record.group for record in by_folder[f"{name}/{split}"]}
            for split in ("train", "valid")
        ]
        assert not groups[0] & groups[1]


def test_existing_sets_are_not_overwritten(games: Path) -> None:
    write_splits(games)
    write_folds(games)
    with pytest.raises(DataError, match=r"splits/seed-0 already exists(.|\n)*another name or seed"):
        write_splits(games, {"train": 1, "valid": 1})
    with pytest.raises(DataError, match="folds already exists"):
        write_folds(games, 2)
    write_splits(games, seed=1)
    write_folds(games, 2, name="folds-2")


@pytest.mark.parametrize(
    "name", ["", ".", "/elsewhere", "../elsewhere", "a/../../b", "train/a", "Test", "link/a"]
)
def test_a_set_must_be_inside_the_root_and_outside_its_splits(games: Path, name: str) -> None:
    (games / "link").symlink_to(games.parent)
    with pytest.raises(DataError, match="expected a folder inside the data root"):
        write_splits(games, name=name)


def test_a_class_with_one_group_stays_in_train_of_every_fold(tmp_path: Path) -> None:
    rows = [{"suffix": "1"}] * 9 + [{"suffix": "7"}] + [{"suffix": "2"}] * 2
    written = write_folds(_write(tmp_path, "train", rows), 3)
    by_folder = _read(tmp_path, written)
    for name in written.names:
        assert {record.label for record in by_folder[f"{name}/train"]} == {"1", "2", "7"}
    assert (
        "class '7' has only 1 group: it is absent from folds/0/valid, folds/1/valid, folds/2/valid"
        in written.notes
    )
    assert any(
        note.startswith("class '2' has 2 groups: it is absent from folds/")
        for note in written.notes
    )


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("uvwxyz")), min_size=1, max_size=14),
    st.booleans(),
)
def test_train_has_every_class_of_valid(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], in_folds: bool
) -> None:
    root = _write(
        tmp_path_factory.mktemp("root"),
        "train",
        [{"suffix": label, "group": group} for label, group in rows],
    )
    try:
        written = write_folds(root, 2) if in_folds else write_splits(root, {"train": 1, "valid": 3})
    except DataError as error:
        if "which are not split" in str(error):
            return
        raise
    for name in written.names:
        assert written.counts[f"{name}/valid"].keys() <= written.counts[f"{name}/train"].keys()


def test_keep_test_copies_the_test_split(games: Path) -> None:
    _write(games, "test", [{"suffix": "1", "group": "game 0"}, {"suffix": "9", "group": "final"}])
    splits = write_splits(games, keep_test=True)
    folds = write_folds(games, 2, keep_test=True)
    for name in (*splits.names, *folds.names):
        test = read_split(games, "test", annotations=name)
        assert [(row.id, row.label) for row in test] == [("test/0.png", "1"), ("test/1.png", "9")]
    assert (
        sum(sum(splits.counts[f"splits/seed-0/{split}"].values()) for split in ("train", "valid"))
        == 80
    )
    assert (
        "1 row(s) of the existing test split share a group or an image with other splits"
        in splits.notes
    )
    assert any(
        note.startswith("class '9' occurs only in the existing test split") for note in splits.notes
    )


def test_groups_that_share_an_image_stay_together(tmp_path: Path) -> None:
    rows = [{"suffix": "1", "group": str(number // 2)} for number in range(20)]
    rows += [
        {"image": f"{number}.png", "suffix": "2", "group": str(number // 2 + 1)}
        for number in (0, 2, 4)
    ]
    written = write_splits(_write(tmp_path, "train", rows), {"train": 1, "valid": 1})
    by_folder = _read(tmp_path, written)
    folders = [
        name
        for name, rows in by_folder.items()
        for row in rows
        if row.group in {"0", "1", "2", "3"}
    ]
    assert (len(folders), len(set(folders))) == (11, 1)


@pytest.mark.parametrize("group_by", ["game", "metadata.game"])
def test_group_by_groups_rows_without_a_group_by_metadata(tmp_path: Path, group_by: str) -> None:
    rows: list[dict[str, Any]] = [
        {"suffix": str(n % 2), "metadata": {"game": n // 4}} for n in range(40)
    ]
    rows += [{"suffix": "0", "group": "own"}, {"suffix": "1"}]
    written = write_splits(_write(tmp_path, "train", rows), group_by=group_by)
    folders = {
        (str(record.metadata["game"]), folder)
        for folder, records in _read(tmp_path, written).items()
        for record in records
        if record.metadata
    }
    assert len(folders) == 10
    assert f"1 row(s) have a group key, so {group_by} was ignored for them" in written.notes
    assert f"1 row(s) have neither a group nor {group_by}: each is its own group" in written.notes


def test_roboflow_copies_of_one_image_stay_together(tmp_path: Path) -> None:
    rows = [{"image": f"{n // 3}_jpg.rf.{n}.jpg", "suffix": "1"} for n in range(30)]
    by_folder = _read(tmp_path, write_folds(_write(tmp_path, "train", rows), 2))
    sources = [
        {record.id.partition("_jpg")[0] for record in by_folder[f"folds/{fold}/valid"]}
        for fold in range(2)
    ]
    assert (len(sources[0]), len(sources[1]), sources[0] & sources[1]) == (5, 5, set())


def test_rendered_rows_stay_in_train(games: Path) -> None:
    _write(games, "train/synthetic", [{"suffix": "1"}] * 10)
    written = write_folds(games, 2)
    by_folder = _read(games, written)
    for name in written.names:
        assert not [
            row for row in by_folder[f"{name}/valid"] if row.id.startswith("train/synthetic/")
        ]
        assert (
            sum(row.id.startswith("train/synthetic/") for row in by_folder[f"{name}/train"]) == 10
        )
    assert "10 row(s) under train/synthetic are rendered and stay in train" in written.notes


def test_quarantined_rows_are_left_out(games: Path) -> None:
    write_quarantine(games / "bad.jsonl", games, {"train/annotations.jsonl:2": ["rule"]})
    written = write_splits(games, quarantine=Quarantine.load(games / "bad.jsonl"))
    ids = [record.id for records in _read(games, written).values() for record in records]
    assert (len(ids), "train/1.png" in ids) == (79, False)


def test_a_note_says_when_no_images_share_a_group(tmp_path: Path) -> None:
    written = write_splits(_write(tmp_path, "train", [{"suffix": "1"}] * 20))
    assert any("no two images share a group" in note for note in written.notes)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"shares": {"train": 1}}, "expected train and at least one of valid and test"),
        ({"shares": {"valid": 1, "test": 1}}, "expected train and at least one of valid and test"),
        ({"shares": {"train": 1, "val": 1}}, "expected train and at least one of valid and test"),
        (
            {"shares": {"train": 1, "test": 1}, "keep_test": True},
            "expected train and at least one of valid and test",
        ),
        ({"shares": {"train": 1, "valid": 0}}, "expected a positive number"),
        ({"keep_test": True}, "no test split to keep"),
        ({"group_by": "metadata.nunber"}, "not in the data"),
    ],
)
def test_invalid_arguments_are_rejected(
    games: Path, arguments: dict[str, Any], expected: str
) -> None:
    if "group_by" in arguments:
        _write(games, "train", [{"suffix": "1", "metadata": {"number": 1}}])
        expected = "no row has this key in its metadata; did you mean 'number'?"
    with pytest.raises(DataError, match=expected):
        write_splits(games, **arguments)
    assert not (games / "splits").exists()


def test_too_few_groups_are_rejected_before_writing(tmp_path: Path) -> None:
    _write(tmp_path, "train", [{"suffix": "1", "group": "a"}] * 5)
    with pytest.raises(
        DataError,
        match=r"no rows left for valid, test. 5 row\(s\) form 1 group\(s\), which are not split",
    ):
        write_splits(tmp_path)
    with pytest.raises(DataError, match="no rows left for valid"):
        write_folds(tmp_path)
    with pytest.raises(DataError, match="folds=1: expected at least 2"):
        write_folds(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_a_root_without_splits_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows to split"):
        write_folds(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        write_folds(tmp_path / "nowhere")


def test_copies_of_an_image_stay_together(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    lines = []
    for number in range(40):
        (tmp_path / "train" / f"{number}.png").write_bytes(bytes([number // 2]))  # each image twice
        lines.append(json.dumps({"image": f"{number}.png", "suffix": "7"}))
    (tmp_path / "train" / "rows.jsonl").write_text("\n".join(lines))
    write_splits(tmp_path, name="mine")
    for split in SPLITS:
        numbers = {
            int(record.path.stem) for record in read_split(tmp_path, split, annotations="mine")
        }
        assert {number ^ 1 for number in numbers} == numbers


def test_select_fold_matches_write_folds(tmp_path: Path) -> None:
    labels = ["23"] * 20 + ["7"] * 9 + ["0"] * 4
    root = _write(
        tmp_path,
        "train",
        [{"suffix": label, "group": f"g{row // 2}"} for row, label in enumerate(labels)],
    )
    _write(root, "valid", [{"suffix": "7"}, {"suffix": "23"}, {"suffix": "23"}])
    written = _read(root, write_folds(root, 3))
    train, valid = read_split(root, "train"), read_split(root, "valid")
    for fold in range(3):
        splits = select_fold(train, valid, fold, 3)
        assert {split: _ids(records) for split, records in splits.items()} == {
            split: _ids(written[f"folds/{fold}/{split}"]) for split in ("train", "valid")
        }


def test_select_fold_rejects_an_empty_fold(tmp_path: Path) -> None:
    root = _write(
        tmp_path, "train", [{"suffix": label, "group": "one game"} for label in ("23", "7", "23")]
    )
    rows = read_split(root, "train")
    with pytest.raises(DataError, match=r"no rows left for valid. 3 row\(s\) form 1 group\(s\)"):
        select_fold(rows, [], 1, 3)
