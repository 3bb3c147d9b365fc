"""Stratified, group-aware splits and cross-validation folds of annotated images."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from cls_data.annotations.quarantine import Quarantine
from cls_data.annotations.reading import SPLITS, Record, Split
from cls_data.convert.annotation_writer import ANNOTATIONS_FILE, encode_row
from cls_data.data_source import Layout
from cls_data.errors import DataError
from cls_data.splits.grouping import group_rows
from cls_data.splits.source_rows import SourceRows, read_source_rows, separate_rendered
from cls_data.splits.stratification import (
    add_missing_classes_to_first,
    assign_groups,
    keep_single_fold_classes_in_train,
    stratify_groups,
)
from cls_export.contract.files import write_atomically

DEFAULT_SHARES: Mapping[Split, float] = {"train": 0.8, "valid": 0.1, "test": 0.1}


@dataclass(frozen=True, slots=True)
class SplitResult:
    """Annotation sets that were written under a data root.

    Attributes:
        names: Folder of each set, relative to the root, as `data.annotations` expects: "folds/0".
        counts: Rows of each class, by the folder of the annotation file: "folds/0/valid".
        notes: Sentences for the user, such as classes that a split lacks.
    """

    names: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...] = ()


def write_splits(
    root: str | os.PathLike[str],
    shares: Mapping[Split, float] = DEFAULT_SHARES,
    *,
    seed: int = 0,
    name: str | None = None,
    group_by: str | None = None,
    keep_test: bool = False,
    quarantine: Quarantine | None = None,
    layout: Layout = "auto",
) -> SplitResult:
    """Write new splits to ROOT/NAME/{train,valid,test}/annotations.jsonl; keep the old ones.

    Rows with a common group or image stay together (see `group_rows`). Train gets every class.
    Rows rendered by a top-up stay in train.

    Args:
        root: The data root.
        shares: Relative sizes of the splits, including train.
        seed: Seed of the assignment; also part of the default name, `splits/seed-<seed>`.
        name: Folder of the new set under the root.
        group_by: Metadata key that groups rows, such as `game` or `metadata.game`.
        keep_test: Copy the test rows unchanged and ignore a share of test.
        quarantine: Rows to leave out.
        layout: How the data are annotated.

    Raises:
        DataError: Rows are malformed; the set exists; a share, name, or key is invalid; or there
            are too few groups to fill each split.
    """
    chosen: list[Split] = []
    for split in SPLITS:
        if split in shares and not (keep_test and split == "test"):
            chosen.append(split)
    is_known = set(shares) <= set(SPLITS)
    if not is_known or "train" not in shares or len(chosen) < 2:
        raise DataError(
            f"shares {dict(shares)}: expected train and at least one of valid and test "
            "(not test with keep_test)"
        )

    if name is None:
        name = f"splits/seed-{seed}"
    base = _check_output_folder(root, name)
    rows = read_source_rows(base, group_by, keep_test, quarantine, layout)
    labels = rows.labels
    chosen_shares = [shares[split] for split in chosen]
    subsets = stratify_groups(labels, rows.groups, chosen_shares, seed)
    subsets = add_missing_classes_to_first(labels, rows.groups, subsets, min_groups=1)
    splits: dict[Split, list[Record]] = {split: [] for split in chosen}
    for record, subset in zip(rows.records, subsets, strict=True):
        split = chosen[subset]
        splits[split].append(record)
    return _write_sets(base, rows, {name: splits})


def write_folds(
    root: str | os.PathLike[str],
    folds: int = 5,
    *,
    seed: int = 0,
    name: str = "folds",
    group_by: str | None = None,
    keep_test: bool = False,
    quarantine: Quarantine | None = None,
    layout: Layout = "auto",
) -> SplitResult:
    """Write folds to ROOT/NAME/<fold>/{train,valid}/annotations.jsonl; keep the old annotations.

    Each row is in valid of one fold and in train of all others. One exception: the smallest group
    of a class that occurs in a single fold stays in train of every fold, so that train always has
    every class. See `write_splits` for the other arguments and errors; with `keep_test` every fold
    also has the old test rows.
    """
    if folds < 2:
        raise DataError(f"folds={folds}: expected at least 2")
    base = _check_output_folder(root, name)
    rows = read_source_rows(base, group_by, keep_test, quarantine, layout)
    subsets = _assign_folds(rows.records, rows.groups, folds, seed)
    sets = {}
    for fold in range(folds):
        sets[f"{name}/{fold}"] = _split_by_fold(rows.records, subsets, fold)
    return _write_sets(base, rows, sets)


def select_fold(
    train: Sequence[Record], valid: Sequence[Record], fold: int, folds: int
) -> dict[Split, list[Record]]:
    """Return one fold of the rows of train and valid, as `write_folds` would with its defaults.

    Writes nothing. The folds depend on the rows alone, so runs with different seeds share them and
    their validation predictions can be pooled.

    Raises:
        DataError: There are too few groups to fill each fold.
    """
    records, rendered = separate_rendered([*train, *valid])

    groups = group_rows(records, group_by=None)
    subsets = _assign_folds(records, groups, folds, seed=0)
    splits = _split_by_fold(records, subsets, fold)
    if not splits["valid"]:
        num_groups = len(set(groups))
        raise DataError(
            f"fold {fold} of {folds}: no rows left for valid. {len(records)} row(s) form "
            f"{num_groups} group(s), which are not split; use fewer folds"
        )

    splits["train"] += rendered
    return splits


def _assign_folds(
    records: Sequence[Record], groups: Sequence[str], folds: int, seed: int
) -> list[int]:
    labels = [record.label for record in records]
    shares = [1 / folds] * folds
    subsets = assign_groups(labels, groups, shares, seed)
    return keep_single_fold_classes_in_train(
        labels,
        groups,
        subsets,
        folds,
    )


def _split_by_fold(
    records: Sequence[Record], subsets: Sequence[int], fold: int
) -> dict[Split, list[Record]]:
    """Put the rows of one fold into valid and all others into train."""
    train: list[Record] = []
    valid: list[Record] = []
    for record, subset in zip(records, subsets, strict=True):
        if subset == fold:
            valid.append(record)
        else:
            train.append(record)
    return {"train": train, "valid": valid}


def _check_output_folder(root: str | os.PathLike[str], name: str) -> Path:
    """Return the resolved root if a set of that name may be written under it."""
    base = Path(root).resolve()
    if not base.is_dir():
        raise DataError(
            f"{root}: no such folder; expected a data root with train/, valid/, or test/"
        )

    folder = base / name
    parts = PurePath(name).parts
    is_outside = ".." in parts or not folder.resolve().is_relative_to(base)
    if not parts or parts[0].lower() in SPLITS or is_outside:
        raise DataError(
            f"name {name!r}: expected a folder inside the data root and outside its splits, "
            "such as splits/a"
        )

    existing = next(folder.rglob("*.jsonl"), None)
    if existing:
        raise DataError(
            f"{existing}: {name} already exists; choose another name or seed, or remove {folder}"
        )
    return base


def _write_sets(
    base: Path, rows: SourceRows, sets: Mapping[str, Mapping[Split, list[Record]]]
) -> SplitResult:
    """Write annotation sets, given by name and split."""
    files: dict[str, list[Record]] = {}
    for name, splits in sets.items():
        empty = [split for split in splits if not splits[split]]
        if empty:
            num_groups = len(set(rows.groups))
            raise DataError(
                f"{name}: no rows left for {', '.join(empty)}. {len(rows.records)} row(s) form "
                f"{num_groups} group(s), which are not split; use fewer splits or folds, or "
                "smaller groups"
            )

        for split in SPLITS:
            records = list(splits.get(split, []))
            records += rows.fixed.get(split, [])
            if records:
                files[f"{name}/{split}"] = records

    counts = {}
    for folder, records in files.items():
        _write_records(base / folder, records)
        labels = sorted(record.label for record in records)
        counts[folder] = dict(Counter(labels))

    folders = []
    for name, splits in sets.items():
        folders += [f"{name}/{split}" for split in splits]
    class_notes = _notes_on_classes(rows, folders, counts)
    return SplitResult(names=tuple(sets), counts=counts, notes=(*rows.notes, *class_notes))


def _write_records(folder: Path, records: Sequence[Record]) -> None:
    lines = []
    for record in records:
        line = encode_row(
            folder,
            record.path,
            record.label,
            record.group,
            record.metadata,
        )
        lines.append(line)
    write_atomically(folder / ANNOTATIONS_FILE, b"".join(lines))


def _notes_on_classes(
    rows: SourceRows, folders: Sequence[str], counts: Mapping[str, Mapping[str, int]]
) -> Iterator[str]:
    groups_of_class: dict[str, set[str]] = defaultdict(set)
    for label, group in zip(rows.labels, rows.groups, strict=True):
        groups_of_class[label].add(group)

    for label in sorted(groups_of_class):
        absent = [folder for folder in folders if label not in counts[folder]]
        if absent:
            num_groups = len(groups_of_class[label])
            groups = f"{num_groups} groups"
            if num_groups == 1:
                groups = "only 1 group"
            yield f"class {label!r} has {groups}: it is absent from {', '.join(absent)}"

    test_labels = {record.label for record in rows.fixed["test"]}
    for label in sorted(test_labels - groups_of_class.keys()):
        yield (
            f"class {label!r} occurs only in the existing test split; training fails, because "
            "train defines the classes"
        )
