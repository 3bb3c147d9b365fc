"""Deals annotated images into splits and folds: groups stay whole, and every class is spread over the parts."""

import difflib
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from cls_data.annotations.quarantine import Quarantine
from cls_data.annotations.reading import SPLITS, Record, Split, read_split
from cls_data.convert.conversion import FILE_NAME, encode_row, roboflow_stem
from cls_data.errors import DataError
from cls_data.splits.stratification import cover_first, deal, stay_in_train, stratified_groups
from cls_data.synthetic.top_up import FOLDER as RENDERED
from cls_export.contract.files import write_atomically

SHARES: Mapping[Split, float] = {"train": 0.8, "valid": 0.1, "test": 0.1}


@dataclass(frozen=True, slots=True)
class Splitting:
    """Annotation sets that were written below a data root.

    Attributes:
        names: of the sets, relative to the root, as `data.annotations` takes them: "folds/0".
        counts: number of rows of each class, by the folder of the annotation file: "folds/0/valid".
        notes: what the user should know, such as classes that a part lacks; a sentence each.
    """

    names: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...] = ()


def write_splits(
    root: str | os.PathLike[str],
    shares: Mapping[Split, float] = SHARES,
    *,
    seed: int = 0,
    name: str | None = None,
    sources: Sequence[Split] | None = None,
    group_by: str | None = None,
    keep_test: bool = False,
    quarantine: Quarantine | None = None,
) -> Splitting:
    """Deal all rows anew into ROOT/NAME/{train,valid,test}/annotations.jsonl; the old annotations stay.

    Rows of one group, or of one image, stay together, directly or by way of other rows. A row's group is its own; else
    its metadata at `group_by`; else the source image that a Roboflow file name tells. Train has every class. Rows that
    a top-up rendered stay in train.

    Args:
        root: the data root.
        shares: relative sizes of the splits, train among them.
        seed: of the deal; it is also in the default name, `splits/seed-<seed>`.
        name: folder of the new set below the root.
        sources: splits whose rows are dealt; by default those that exist.
        group_by: key of the metadata, such as `game` or `metadata.game`.
        keep_test: copy the rows of test as they are, and deal only the others; a share of test is then ignored.
        quarantine: rows to leave out.

    Raises:
        DataError: rows are malformed, a set of that name exists, a share, source, name or key is not valid, or there
            are too few groups to give each split one.
    """
    chosen = [split for split in SPLITS if split in shares and not (keep_test and split == "test")]
    if set(shares) - set(SPLITS) or "train" not in shares or len(chosen) < 2:
        raise DataError(
            f"shares {dict(shares)}: expected train and at least one more of valid and test to deal"
        )
    name = f"splits/seed-{seed}" if name is None else name
    base = _base(root, name)
    pool = _read(base, sources, group_by, keep_test, quarantine)
    labels = [record.label for record in pool.records]
    parts = stratified_groups(labels, pool.groups, [shares[split] for split in chosen], seed)
    parts = cover_first(labels, pool.groups, parts, least_groups=1)
    return _write(
        base, pool, {name: {split: _rows(parts, {index}) for index, split in enumerate(chosen)}}
    )


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
) -> Splitting:
    """Deal all rows into ROOT/NAME/<fold>/{train,valid}/annotations.jsonl; the old annotations stay.

    Each row is in valid of one fold and in train of the others. The exception is a class that lies in one fold alone,
    as one with a single group does: its smallest group stays in train everywhere, so that train always has every class.
    The other arguments are those of `write_splits`; with `keep_test` every fold also has the old test rows.

    Raises:
        DataError: as `write_splits`; or there are fewer than two folds.
    """
    if folds < 2:
        raise DataError(f"folds={folds}: expected at least 2")
    base = _base(root, name)
    pool = _read(base, sources, group_by, keep_test, quarantine)
    labels = [record.label for record in pool.records]
    parts = deal(labels, pool.groups, [1 / folds] * folds, seed)
    parts = stay_in_train(labels, pool.groups, parts, folds)
    everything = set(range(folds + 1))
    dealt: _Dealt = {
        f"{name}/{fold}": {
            "train": _rows(parts, everything - {fold}),
            "valid": _rows(parts, {fold}),
        }
        for fold in range(folds)
    }
    return _write(base, pool, dealt)


def fold_of(
    train: Sequence[Record], valid: Sequence[Record], fold: int, folds: int
) -> dict[Split, list[Record]]:
    """Deal the rows of train and valid anew, as `write_folds` would with its defaults, and return one fold of them.

    Nothing is written, and the deal depends on the rows alone: runs of different seeds and folds share it, so that the
    folds' answers for their valid rows can be pooled.

    Raises:
        DataError: too few groups to give each fold one.
    """
    dealt = [record for record in [*train, *valid] if not record.source.startswith(f"{RENDERED}/")]
    rendered = [record for record in train if record.source.startswith(f"{RENDERED}/")]
    labels, groups = [record.label for record in dealt], _groups(dealt, None)
    parts = stay_in_train(labels, groups, deal(labels, groups, [1 / folds] * folds, 0), folds)
    kept = [dealt[row] for row in _rows(parts, {fold})]
    if not kept:
        raise DataError(
            f"fold {fold} of {folds}: nothing is left for valid: {len(dealt)} row(s) in {len(set(groups))} group(s), "
            "which stay whole; ask for fewer folds"
        )
    return {
        "train": [dealt[row] for row in _rows(parts, set(range(folds + 1)) - {fold})] + rendered,
        "valid": kept,
    }


_Dealt = Mapping[str, Mapping[Split, list[int]]]
"""Positions in the pool, by the name of the set and the split."""


@dataclass(frozen=True, slots=True)
class _Pool:
    """Rows to deal with their groups, rows whose split is settled, and notes."""

    records: list[Record]
    groups: list[str]
    settled: dict[Split, list[Record]]
    notes: list[str]


def _rows(parts: Sequence[int], wanted: set[int]) -> list[int]:
    return [row for row, part in enumerate(parts) if part in wanted]


def _base(root: str | os.PathLike[str], name: str) -> Path:
    """Return the resolved root, if a set of that name may be written below it."""
    base = Path(root).resolve()
    if not base.is_dir():
        raise DataError(
            f"{root}: no such folder; expected a data root that holds train/, valid/ or test/"
        )
    folder = base / name
    first = PurePath(name).parts[:1]
    if (
        not first
        or first[0].lower() in SPLITS
        or ".." in PurePath(name).parts
        or not folder.resolve().is_relative_to(base)
    ):
        raise DataError(
            f"name {name!r}: expected a folder below the data root, such as splits/a, outside of its splits"
        )
    if existing := next(folder.rglob("*.jsonl"), None):
        raise DataError(
            f"{existing}: {name} is written already, and kept; give another name or seed, or remove {folder}"
        )
    return base


def _read(
    base: Path,
    sources: Sequence[Split] | None,
    group_by: str | None,
    keep_test: bool,
    quarantine: Quarantine | None,
) -> _Pool:
    present = [split for split in SPLITS if (base / split).is_dir()]
    wanted = (
        [split for split in present if not (keep_test and split == "test")]
        if sources is None
        else list(sources)
    )
    needed = {*wanted, *(["test"] if keep_test else [])}
    if (
        not wanted
        or len(set(wanted)) < len(wanted)
        or not needed <= set(present)
        or (keep_test and "test" in wanted)
    ):
        found = ", ".join(present) or "no split"
        raise DataError(
            f"sources {wanted} with keep_test={keep_test}: expected some of the splits in {base} ({found})"
        )
    records = [
        record for split in wanted for record in read_split(base, split, quarantine=quarantine)
    ]
    test = read_split(base, "test", quarantine=quarantine) if keep_test else []
    rendered = [record for record in records if record.source.startswith(f"{RENDERED}/")]
    records = [record for record in records if not record.source.startswith(f"{RENDERED}/")]
    groups = _groups([*records, *test], group_by)
    pool = _Pool(records, groups[: len(records)], {"train": rendered, "test": test}, [])
    pool.notes.extend(_notes_on_groups(pool, groups[len(records) :], group_by))
    return pool


def _groups(records: Sequence[Record], group_by: str | None) -> list[str]:
    """Name the set of rows that each row is linked to, by a group or an image in common, through any number of rows."""
    key = None if group_by is None else group_by.removeprefix("metadata.")
    ungrouped = [record for record in records if record.group is None]
    if key is not None and ungrouped and not any(key in record.metadata for record in ungrouped):
        known = sorted({name for record in ungrouped for name in record.metadata})
        hint = difflib.get_close_matches(key, known, n=1) or known
        raise DataError(
            f"group_by {group_by!r}: no row has this key in its metadata; did you mean one of {hint}?"
        )
    links = _Links()
    for record in records:
        links.join(f"image {record.id}", _stated_group(record, key) or f"image {record.id}")
    for image, path in {record.id: record.path for record in records}.items():
        # Copies under other names are the same image, and the gate would find them in two splits.
        links.join(f"image {image}", f"bytes {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return [links.find(f"image {record.id}") for record in records]


def _stated_group(record: Record, key: str | None) -> str | None:
    if record.group is not None:
        return f"group {record.group}"
    if key is not None and record.metadata.get(key) is not None:
        return f"metadata {json.dumps(record.metadata[key], sort_keys=True)}"
    stem = roboflow_stem(record.path.name)
    return None if stem is None else f"source image {stem}"


class _Links:
    """Names joined into sets, each called by its first name in sorted order, whatever the order of joining."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        while (parent := self._parent.setdefault(name, name)) != name:
            self._parent[name] = self._parent[parent]
            name = parent
        return name

    def join(self, one: str, other: str) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        self._parent[second] = first


def _notes_on_groups(
    pool: _Pool, test_groups: Sequence[str], group_by: str | None
) -> Iterator[str]:
    dealt = set(pool.groups)
    if len(dealt) == len({record.id for record in pool.records}):
        yield "no two images share a group, so those of one game or video may be dealt apart; see group_by"
    if group_by is not None and (own := sum(record.group is not None for record in pool.records)):
        yield f"{own} row(s) have a group of their own, so {group_by} was not asked of them"
    key = group_by.removeprefix("metadata.") if group_by is not None else ""
    lacking = sum(
        record.group is None and record.metadata.get(key) is None for record in pool.records
    )
    if group_by is not None and lacking:
        yield f"{lacking} row(s) have neither a group nor {group_by}: each image is on its own"
    if shared := sum(group in dealt for group in test_groups):
        yield f"{shared} row(s) of the kept test split share a group or an image with rows that were dealt"
    if pool.settled["train"]:
        yield f"{len(pool.settled['train'])} row(s) below {RENDERED} are rendered: they stay in train"


def _write(base: Path, pool: _Pool, dealt: _Dealt) -> Splitting:
    files: dict[str, list[Record]] = {}
    notes = list(pool.notes)
    for name, splits in dealt.items():
        if short := [split for split, rows in splits.items() if not rows]:
            raise DataError(
                f"{name}: nothing is left for {', '.join(short)}: {len(pool.records)} row(s) in "
                f"{len(set(pool.groups))} group(s), which stay whole; ask for fewer parts, or group by something finer"
            )
        for split in SPLITS:
            rows = [pool.records[row] for row in splits.get(split, [])] + pool.settled.get(
                split, []
            )
            files |= {f"{name}/{split}": rows} if rows else {}
    for folder, rows in files.items():
        real = Path(os.path.realpath(base / folder))
        lines = [encode_row(real, row.path, row.label, row.group, row.metadata) for row in rows]
        write_atomically(base / folder / FILE_NAME, b"".join(lines))
    counts = {
        folder: dict(sorted(Counter(row.label for row in rows).items()))
        for folder, rows in files.items()
    }
    return Splitting(tuple(dealt), counts, (*notes, *_notes_on_classes(pool, dealt, counts)))


def _notes_on_classes(
    pool: _Pool, dealt: _Dealt, counts: Mapping[str, Mapping[str, int]]
) -> Iterator[str]:
    groups: dict[str, set[str]] = defaultdict(set)
    for record, group in zip(pool.records, pool.groups, strict=True):
        groups[record.label].add(group)
    folders = [f"{name}/{split}" for name, splits in dealt.items() for split in splits]
    for label in sorted(groups):
        if absent := [folder for folder in folders if label not in counts[folder]]:
            count = "only 1 group" if len(groups[label]) == 1 else f"{len(groups[label])} groups"
            yield f"class {label!r} has {count}: it is absent from {', '.join(absent)}"
    for label in sorted({record.label for record in pool.settled["test"]} - set(groups)):
        yield f"class {label!r} is in the kept test split alone: training refuses labels that train lacks"
