"""Stratified, group-aware splits and cross-validation folds of annotated images."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from cls_data.annotations.quarantine import Quarantine
from cls_data.annotations.reading import SPLITS, Record, Split, read_split
from cls_data.convert.annotation_writer import ANNOTATIONS_FILE, encode_row
from cls_data.errors import DataError
from cls_data.splits.grouping import group_rows, metadata_key
from cls_data.splits.stratification import (
    add_missing_classes_to_first,
    assign_groups,
    keep_single_fold_classes_in_train,
    stratify_groups,
)
from cls_data.synthetic.top_up import FOLDER as RENDERED_FOLDER
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
    sources: Sequence[Split] | None = None,
    group_by: str | None = None,
    keep_test: bool = False,
    quarantine: Quarantine | None = None,
) -> SplitResult:
    """Write new splits to ROOT/NAME/{train,valid,test}/annotations.jsonl; keep the old ones.

    Rows with a common group or image stay together (see `group_rows`). Train gets every class.
    Rows rendered by a top-up stay in train.

    Args:
        root: The data root.
        shares: Relative sizes of the splits, including train.
        seed: Seed of the assignment; also part of the default name, `splits/seed-<seed>`.
        name: Folder of the new set under the root.
        sources: Splits whose rows are reassigned; all that exist by default.
        group_by: Metadata key that groups rows, such as `game` or `metadata.game`.
        keep_test: Copy the test rows unchanged and ignore a share of test.
        quarantine: Rows to leave out.

    Raises:
        DataError: Rows are malformed; the set exists; a share, source, name, or key is invalid; or
            there are too few groups to fill each split.
    """
    chosen: list[Split] = []
    for split in SPLITS:
        if split in shares and not (keep_test and split == "test"):
            chosen.append(split)
    if set(shares) - set(SPLITS) or "train" not in shares or len(chosen) < 2:
        raise DataError(
            f"shares {dict(shares)}: expected train and at least one of valid and test "
            "(not test with keep_test)"
        )
    name = f"splits/seed-{seed}" if name is None else name
    base = _check_output_folder(root, name)
    rows = _read_rows(base, sources, group_by, keep_test, quarantine)
    subsets = stratify_groups(rows.labels, rows.groups, [shares[split] for split in chosen], seed)
    subsets = add_missing_classes_to_first(rows.labels, rows.groups, subsets, min_groups=1)
    splits: dict[Split, list[Record]] = {split: [] for split in chosen}
    for record, subset in zip(rows.records, subsets, strict=True):
        splits[chosen[subset]].append(record)
    return _write_sets(base, rows, {name: splits})


def write_folds(
    root: str | os.PathLike[str],
    folds: int = 5,
    *,
    seed: int = 0,
    name: str = "folds",
    sources: Sequence[Split] | None = None,
    group_by: str | None = None,
    keep_test: bool = False,
    quarantine: Quarantine | None = None,
) -> SplitResult:
    """Write folds to ROOT/NAME/<fold>/{train,valid}/annotations.jsonl; keep the old annotations.

    Each row is in valid of one fold and in train of all others. One exception: the smallest group
    of a class that occurs in a single fold stays in train of every fold, so that train always has
    every class. See `write_splits` for the other arguments; with `keep_test` every fold also has
    the old test rows.

    Raises:
        DataError: As `write_splits`; or there are fewer than two folds.
    """
    if folds < 2:
        raise DataError(f"folds={folds}: expected at least 2")
    base = _check_output_folder(root, name)
    rows = _read_rows(base, sources, group_by, keep_test, quarantine)
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
    records, rendered = _separate_rendered([*train, *valid])
    groups = group_rows(records, None)
    splits = _split_by_fold(records, _assign_folds(records, groups, folds, 0), fold)
    if not splits["valid"]:
        raise DataError(
            f"fold {fold} of {folds}: no rows left for valid. {len(records)} row(s) form "
            f"{len(set(groups))} group(s), which are not split; use fewer folds"
        )
    splits["train"] += rendered
    return splits


def _assign_folds(
    records: Sequence[Record], groups: Sequence[str], folds: int, seed: int
) -> list[int]:
    labels = [record.label for record in records]
    subsets = assign_groups(labels, groups, [1 / folds] * folds, seed)
    return keep_single_fold_classes_in_train(labels, groups, subsets, folds)


def _split_by_fold(
    records: Sequence[Record], subsets: Sequence[int], fold: int
) -> dict[Split, list[Record]]:
    """Put the rows of one fold into valid and all others into train."""
    splits: dict[Split, list[Record]] = {"train": [], "valid": []}
    for record, subset in zip(records, subsets, strict=True):
        splits["valid" if subset == fold else "train"].append(record)
    return splits


def _separate_rendered(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Return the rows of real images and the rows that a top-up rendered."""
    real: list[Record] = []
    rendered: list[Record] = []
    for record in records:
        is_rendered = record.source.startswith(f"{RENDERED_FOLDER}/")
        (rendered if is_rendered else real).append(record)
    return real, rendered


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows to assign with their groups, rows whose split is fixed, and notes."""

    records: list[Record]
    groups: list[str]
    fixed: dict[Split, list[Record]]
    notes: list[str]

    @property
    def labels(self) -> list[str]:
        return [record.label for record in self.records]


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


def _read_rows(
    base: Path,
    sources: Sequence[Split] | None,
    group_by: str | None,
    keep_test: bool,
    quarantine: Quarantine | None,
) -> _Rows:
    existing = [split for split in SPLITS if (base / split).is_dir()]
    if sources is None:
        sources = [split for split in existing if not (keep_test and split == "test")]
    required = set(sources)
    if keep_test:
        required.add("test")
    is_repeated = len(set(sources)) < len(sources) or (keep_test and "test" in sources)
    if not sources or is_repeated or not required <= set(existing):
        raise DataError(
            f"sources {list(sources)} with keep_test={keep_test}: expected a selection of the "
            f"splits in {base} ({', '.join(existing) or 'no split'})"
        )
    all_records: list[Record] = []
    for split in sources:
        all_records += read_split(base, split, quarantine=quarantine)
    test = read_split(base, "test", quarantine=quarantine) if keep_test else []
    records, rendered = _separate_rendered(all_records)
    groups = group_rows([*records, *test], group_by)
    rows = _Rows(records, groups[: len(records)], {"train": rendered, "test": test}, [])
    rows.notes.extend(_notes_on_groups(rows, groups[len(records) :], group_by))
    return rows


def _notes_on_groups(
    rows: _Rows, test_groups: Sequence[str], group_by: str | None
) -> Iterator[str]:
    groups = set(rows.groups)
    images = {record.id for record in rows.records}
    if len(groups) == len(images):
        yield (
            "no two images share a group, so images of one game or video may be in different "
            "splits; see group_by"
        )
    key = metadata_key(group_by)
    if key is not None:
        num_grouped = 0
        num_single = 0
        for record in rows.records:
            if record.group is not None:
                num_grouped += 1
            elif record.metadata.get(key) is None:
                num_single += 1
        if num_grouped:
            yield f"{num_grouped} row(s) have a group key, so {group_by} was ignored for them"
        if num_single:
            yield f"{num_single} row(s) have neither a group nor {group_by}: each is its own group"
    num_shared = sum(group in groups for group in test_groups)
    if num_shared:
        yield (
            f"{num_shared} row(s) of the kept test split share a group or an image "
            "with other splits"
        )
    if rows.fixed["train"]:
        num_rendered = len(rows.fixed["train"])
        yield f"{num_rendered} row(s) under {RENDERED_FOLDER} are rendered and stay in train"


def _write_sets(
    base: Path, rows: _Rows, sets: Mapping[str, Mapping[Split, list[Record]]]
) -> SplitResult:
    """Write annotation sets, given by name and split."""
    files: dict[str, list[Record]] = {}
    for name, splits in sets.items():
        empty = [split for split, records in splits.items() if not records]
        if empty:
            raise DataError(
                f"{name}: no rows left for {', '.join(empty)}. {len(rows.records)} row(s) form "
                f"{len(set(rows.groups))} group(s), which are not split; use fewer splits or "
                "folds, or smaller groups"
            )
        for split in SPLITS:
            records = [*splits.get(split, []), *rows.fixed.get(split, [])]
            if records:
                files[f"{name}/{split}"] = records
    counts = {}
    for folder, records in files.items():
        real = Path(os.path.realpath(base / folder))
        lines = []
        for record in records:
            lines.append(encode_row(real, record.path, record.label, record.group, record.metadata))
        write_atomically(base / folder / ANNOTATIONS_FILE, b"".join(lines))
        counts[folder] = dict(sorted(Counter(record.label for record in records).items()))
    folders = [f"{name}/{split}" for name, splits in sets.items() for split in splits]
    notes = (*rows.notes, *_notes_on_classes(rows, folders, counts))
    return SplitResult(tuple(sets), counts, notes)


def _notes_on_classes(
    rows: _Rows, folders: Sequence[str], counts: Mapping[str, Mapping[str, int]]
) -> Iterator[str]:
    groups_of_class: dict[str, set[str]] = defaultdict(set)
    for label, group in zip(rows.labels, rows.groups, strict=True):
        groups_of_class[label].add(group)
    for label in sorted(groups_of_class):
        absent = [folder for folder in folders if label not in counts[folder]]
        if absent:
            num_groups = len(groups_of_class[label])
            groups = "only 1 group" if num_groups == 1 else f"{num_groups} groups"
            yield f"class {label!r} has {groups}: it is absent from {', '.join(absent)}"
    test_labels = {record.label for record in rows.fixed["test"]}
    for label in sorted(test_labels - groups_of_class.keys()):
        yield (
            f"class {label!r} occurs only in the kept test split; training will refuse it, because "
            "train defines the classes"
        )
