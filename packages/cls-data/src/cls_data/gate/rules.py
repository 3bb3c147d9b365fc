"""The gate's rules: each a function of the rows and of what was found in their image files.

A rule is a generator of findings. It neither reads files nor knows its policy.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from cls_data.gate.appearance import (
    blurred_images,
    bright_images,
    dark_images,
    outlying_aspects,
    outlying_sizes,
)
from cls_data.gate.config import GateConfig
from cls_data.gate.duplicates import look_alike
from cls_data.gate.inputs import Finding, GateInputs, Row, about, splits_of
from cls_export.contract.image_formats import SUFFIXES

Rule = Callable[[GateInputs, GateConfig], Iterator[Finding]]


def _schema_errors(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    yield from _bad_rows(evidence, "schema")


def _image_files(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    yield from _bad_rows(evidence, "image_file")


def _bad_rows(evidence: GateInputs, kind: str) -> Iterator[Finding]:
    for bad in evidence.bad:
        if bad.kind == kind:
            yield Finding(f"{bad.source}: {bad.reason}", (bad.source,), (bad.source,))


def _damaged_images(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    yield from _undecodable(evidence, ("damaged", "unreadable"))


def _huge_images(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    yield from _undecodable(evidence, ("huge",))


def _undecodable(evidence: GateInputs, kinds: Sequence[str]) -> Iterator[Finding]:
    for row in evidence.rows:
        kind, reason = evidence.files.problems.get(row.file, ("", ""))
        if kind in kinds:
            yield about([row], reason, leave_out=[row], show=False)


def _wrong_extensions(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    for file in evidence.decoded:
        name, rows = evidence.files.formats[file], evidence.by_file[file]
        suffix = rows[0].record.path.suffix.lower()
        if name is not None and suffix not in SUFFIXES[name]:
            yield about(rows, f"is a {name} file, but its name ends in {suffix!r}", leave_out=rows)


def _conflicting_labels(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    for rows in evidence.same_images:
        labels = {row.record.label for row in rows}
        if len(labels) < 2:
            continue
        # An empty label beside one name says that nobody named it then; between two names nobody here can choose.
        wrong = [row for row in rows if not row.record.label] if len(labels - {""}) == 1 else rows
        yield about(
            rows,
            "one image, several labels: " + ", ".join(map(repr, sorted(labels))),
            leave_out=wrong,
        )


def _duplicates_across_splits(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    for rows in evidence.same_images:
        splits = splits_of(rows)
        if len(splits) > 1:
            # What is measured on stays whole: of test, valid, train the first keeps its copies.
            wrong = [row for row in rows if row.split != splits[-1]]
            yield about(rows, f"one image in {' and '.join(splits)}", leave_out=wrong)


def _duplicates_within_split(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    for rows in evidence.same_images:
        for split in splits_of(rows):
            within = [row for row in rows if row.split == split]
            if len(within) > 1 and len({row.record.label for row in within}) == 1:
                yield about(within, f"one image {len(within)} times", leave_out=within[1:])


def _near_duplicates_across_splits(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    for rows in _look_alikes(evidence, config):
        splits = splits_of(rows)
        if len(splits) > 1:
            wrong = [row for row in rows if row.split != splits[-1]]
            yield about(
                rows, f"look alike, in {' and '.join(splits)}{_labels(rows)}", leave_out=wrong
            )


def _near_duplicates_within_split(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    for rows in _look_alikes(evidence, config):
        if len(splits_of(rows)) == 1:
            yield about(rows, f"look alike{_labels(rows)}", leave_out=rows[1:])


def _look_alikes(evidence: GateInputs, config: GateConfig) -> Iterator[list[Row]]:
    """Yield the rows of images that look alike; several rows of one image, and no other, are found elsewhere."""
    places = np.array([rows[0].file for rows in evidence.images], np.int64)
    clusters = look_alike(
        evidence.files.hashes[places],
        evidence.files.thumbnails[places],
        bits=config.near_duplicate_bits,
        levels=config.near_duplicate_levels,
    )
    for cluster in clusters:
        yield [row for place in cluster for row in evidence.images[place]]


def _groups_across_splits(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    groups: dict[str, list[Row]] = {}
    for row in evidence.rows:
        if row.record.group is not None:
            groups.setdefault(row.record.group, []).append(row)
    for group, rows in groups.items():
        splits = splits_of(rows)
        if len(splits) > 1:
            wrong = [row for row in rows if row.split != splits[-1]]
            counts = Counter(row.split for row in rows)
            where = " and ".join(f"{split} ({counts[split]} rows)" for split in splits)
            yield about(rows, f"group {group!r} stands in {where}", leave_out=wrong, show=False)


def _unknown_labels(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    known = evidence.counts.get("train", Counter())
    for row in evidence.rows:
        if row.split != "train" and row.record.label not in known:
            yield about([row], f"label {row.record.label!r} is in no row of train", leave_out=[row])


def _empty_labels(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    for split, counts in evidence.counts.items():
        rows = [row for row in evidence.rows if row.split == split and not row.record.label]
        if rows:
            text = f'the label of {len(rows)} of {counts.total()} rows of {split} is "", which makes it a class'
            yield about(rows, text, leave_out=rows)


def _absent_classes(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    classes = set(evidence.counts.get("train", {}))
    for split, counts in evidence.counts.items():
        if absent := sorted(classes - set(counts)):
            names = ", ".join(map(repr, absent))
            yield Finding(f"{split} has no row of {len(absent)} of {len(classes)} classes: {names}")


def _rare_classes(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    for label, count in sorted(
        evidence.counts.get("train", Counter()).items(), key=lambda each: each[1]
    ):
        if count < config.rare_class_under:
            yield Finding(f"class {label!r} has {count} rows in train", weight=-count)


def _imbalance(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    counts = evidence.counts.get("train", Counter()).most_common()
    if counts and counts[0][1] > config.imbalance_over * counts[-1][1]:
        (largest, most), (smallest, fewest) = counts[0], counts[-1]
        yield Finding(
            f"class {largest!r} has {most} rows in train, class {smallest!r} has {fewest}: "
            f"{most / fewest:.0f} times as many"
        )


def _labels(rows: Sequence[Row]) -> str:
    labels = sorted({row.record.label for row in rows})
    return f", with labels {', '.join(map(repr, labels))}" if len(labels) > 1 else ""


JUDGES: Final[Mapping[str, Rule]] = {
    "schema_errors": _schema_errors,
    "image_files": _image_files,
    "damaged_images": _damaged_images,
    "huge_images": _huge_images,
    "wrong_extensions": _wrong_extensions,
    "conflicting_labels": _conflicting_labels,
    "duplicates_across_splits": _duplicates_across_splits,
    "duplicates_within_split": _duplicates_within_split,
    "near_duplicates_across_splits": _near_duplicates_across_splits,
    "near_duplicates_within_split": _near_duplicates_within_split,
    "groups_across_splits": _groups_across_splits,
    "unknown_labels": _unknown_labels,
    "empty_labels": _empty_labels,
    "absent_classes": _absent_classes,
    "rare_classes": _rare_classes,
    "imbalance": _imbalance,
    "outlying_sizes": outlying_sizes,
    "outlying_aspects": outlying_aspects,
    "dark_images": dark_images,
    "bright_images": bright_images,
    "blurred_images": blurred_images,
}
"""A function for every rule of `GateConfig`, in its order."""
