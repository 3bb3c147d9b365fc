"""The rules of the data gate: generators of findings that read no files and ignore policies."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from cls_data.annotations.label_names import LabelHints, label_key, quote_label
from cls_data.gate.appearance import (
    blurred_images,
    bright_images,
    dark_images,
    outlying_aspects,
    outlying_sizes,
)
from cls_data.gate.config import RULE_NAMES, GateConfig, Policy
from cls_data.gate.inputs import (
    Finding,
    GateInputs,
    GateRow,
    sorted_splits,
    unique_labels,
)
from cls_data.gate.text import pluralize, quote_all
from cls_export.contract.image_formats import SUFFIXES
from cls_export.contract.text import escape_control_characters

Rule = Callable[[GateInputs, GateConfig], Iterator[Finding]]


def bad_rows(inputs: GateInputs, config: GateConfig, kind: str) -> Iterator[Finding]:
    """Find rows that do not match the schema, or whose image file is missing or not allowed."""
    for row in inputs.bad_rows:
        if row.kind == kind:
            yield Finding(
                text=escape_control_characters(f"{row.source}: {row.reason}"),
                sources=(row.source,),
                quarantine=(row.source,),
            )


def undecodable_images(
    inputs: GateInputs, config: GateConfig, kinds: Sequence[str], fix: str
) -> Iterator[Finding]:
    """Find rows whose image cannot be decoded or has too many pixels."""
    for row in inputs.rows:
        problem = inputs.files.problems.get(row.file)
        if problem is not None and problem.kind in kinds:
            yield Finding.from_rows(
                [row],
                problem.reason,
                fix,
                quarantine=[row],
                has_images=False,
            )


def wrong_extensions(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find files whose extension does not match their format."""
    for file in inputs.decoded_files:
        rows = inputs.rows_by_file[file]
        name = inputs.files.formats[file]
        suffix = rows[0].record.path.suffix.lower()
        if name is not None and suffix not in SUFFIXES[name]:
            yield Finding.from_rows(
                rows,
                f"a {name} file with the extension {suffix!r}",
                "rename the file",
                quarantine=rows,
            )


def conflicting_labels(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images with several labels."""
    for rows in inputs.duplicates:
        labels = unique_labels(rows)
        if len(labels) < 2:
            continue
        quarantine = rows
        if len(labels) == 2 and "" in labels:
            # An empty label next to a single name probably means "not labeled yet".
            # Between two names, nothing tells which one is right.
            quarantine = [row for row in rows if not row.record.label]
        yield Finding.from_rows(
            rows,
            f"one image with the labels {quote_all(labels)}",
            "keep the correct label",
            quarantine=quarantine,
        )


def duplicates_across_splits(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images that occur in several splits."""
    for rows in inputs.duplicates:
        splits = sorted_splits(rows)
        if len(splits) > 1:
            yield Finding.from_rows(
                rows,
                f"one image in {' and '.join(splits)}",
                "keep it in one split",
                quarantine=_rows_outside_last_split(rows),
            )


def duplicates_within_split(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images that occur several times in a split with the same label."""
    for rows in inputs.duplicates:
        for split in sorted_splits(rows):
            copies = [row for row in rows if row.split == split]
            labels = unique_labels(copies)
            if len(copies) > 1 and len(labels) == 1:
                yield Finding.from_rows(
                    copies,
                    f"one image {len(copies)} times in {split}",
                    "keep one row",
                    quarantine=copies[1:],
                )


def near_duplicates_across_splits(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images that look alike, in several splits."""
    for rows in _near_duplicates(inputs, config):
        splits = sorted_splits(rows)
        if len(splits) > 1:
            yield Finding.from_rows(
                rows,
                f"near-duplicates in {' and '.join(splits)}{_differing_labels(rows)}",
                "keep them in one split",
                quarantine=_rows_outside_last_split(rows),
            )


def near_duplicates_within_split(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images that look alike, within one split."""
    for rows in _near_duplicates(inputs, config):
        splits = sorted_splits(rows)
        if len(splits) == 1:
            yield Finding.from_rows(
                rows,
                f"near-duplicates in {splits[0]}{_differing_labels(rows)}",
                "keep one of them if they show the same scene",
                quarantine=rows[1:],
            )


def _near_duplicates(inputs: GateInputs, config: GateConfig) -> list[list[GateRow]]:
    return inputs.near_duplicates(config.near_duplicate_bits, config.near_duplicate_levels)


def groups_across_splits(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find groups with rows in several splits."""
    groups: dict[str, list[GateRow]] = {}
    for row in inputs.rows:
        if row.record.group is not None:
            groups.setdefault(row.record.group, []).append(row)

    for group, rows in groups.items():
        splits = sorted_splits(rows)
        if len(splits) < 2:
            continue

        counts = Counter(row.split for row in rows)
        row_counts = [f"{split} ({pluralize(counts[split], 'row')})" for split in splits]

        yield Finding.from_rows(
            rows,
            f"group {group!r} is in {' and '.join(row_counts)}",
            "keep each group in one split",
            quarantine=_rows_outside_last_split(rows),
            has_images=False,
        )


def unknown_labels(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find labels that do not occur in train."""
    train_labels = inputs.class_counts.get("train", Counter())
    if not train_labels and inputs.rows:
        yield Finding.from_rows(
            inputs.rows,
            "train has no valid row, so there is no class for this label",
            "add or correct the rows of train",
            quarantine=inputs.rows,
            has_images=False,
        )
        return
    hints = LabelHints(train_labels)
    for row in inputs.rows:
        label = row.record.label
        if row.split != "train" and label not in train_labels:
            yield Finding.from_rows(
                [row],
                f"label {quote_label(label)} does not occur in train{hints.suggest(label)}",
                "correct the label or add training images",
                quarantine=[row],
            )


def empty_labels(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find empty labels, which form a class."""
    for split, counts in inputs.class_counts.items():
        rows = [row for row in inputs.rows if row.split == split and not row.record.label]
        if rows:
            total = pluralize(counts.total(), "row")
            yield Finding.from_rows(
                rows,
                f"empty label in {len(rows)} of {total} of {split}",
                'label these images, unless "" is meant to be a class',
                quarantine=rows,
            )


def similar_labels(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find labels that differ only in letter case, blanks, or Unicode form, and outer blanks."""
    rows_by_label: dict[str, list[GateRow]] = {}
    for row in inputs.rows:
        rows_by_label.setdefault(row.record.label, []).append(row)
    spellings: dict[str, list[str]] = {}
    for label in rows_by_label:
        spellings.setdefault(label_key(label), []).append(label)

    for labels in spellings.values():
        labels.sort(key=lambda label: (-len(rows_by_label[label]), label))
        counts = []
        for label in labels:
            count = pluralize(len(rows_by_label[label]), "row")
            counts.append(f"{quote_label(label)} ({count})")

        if len(labels) > 1:
            rarer_rows = []
            for label in labels[1:]:
                rarer_rows += rows_by_label[label]
            yield Finding.from_rows(
                rarer_rows,
                f"the labels {', '.join(counts)} differ only in letter case, blanks, or Unicode "
                "form, but are different classes",
                "use one spelling, or turn the rule off if they are meant to be different",
                quarantine=rarer_rows,
                has_images=False,
            )
        elif labels[0] != labels[0].strip():
            rows = rows_by_label[labels[0]]
            yield Finding.from_rows(
                rows,
                f"the label {counts[0]} starts or ends with a blank, which is part of its name",
                "remove the blank unless it is meant",
                quarantine=rows,
                has_images=False,
            )


def absent_classes(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find classes of train without a row in another split."""
    train_labels = set(inputs.class_counts.get("train", {}))
    for split, counts in inputs.class_counts.items():
        absent = train_labels - set(counts)
        if absent:
            count = f"{len(absent)} of {len(train_labels)} classes"

            yield Finding(
                f"{split} lacks {count}: {quote_all(absent)}; "
                "add images, or split again with `cls-data split`"
            )


def rare_classes(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find classes with few training rows."""
    train = inputs.class_counts.get("train", Counter())
    for label, count in train.items():
        if count < config.rare_class_under:
            yield Finding(
                f"class {label!r} has {pluralize(count, 'row')} in train, fewer than "
                f"{config.rare_class_under}; add training images",
                severity=-count,
            )


def imbalance(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find a large ratio between the largest and the smallest class of train."""
    train = inputs.class_counts.get("train", Counter())
    classes = train.most_common()
    if not classes:
        return
    largest, max_count = classes[0]
    smallest, min_count = classes[-1]

    if max_count > config.imbalance_over * min_count:
        yield Finding(
            f"class {largest!r} has {max_count / min_count:.0f} times as many rows in train "
            f"({max_count}) as class {smallest!r} ({min_count}); add images of rare classes, or "
            "balance them with data.sampler=weighted or data.class_weights=balanced"
        )


def _rows_outside_last_split(rows: Sequence[GateRow]) -> list[GateRow]:
    """Return the rows to quarantine so that test, or else valid, remains complete."""
    last_split = sorted_splits(rows)[-1]
    other_rows = []
    for row in rows:
        if row.split != last_split:
            other_rows.append(row)
    return other_rows


def _differing_labels(rows: Sequence[GateRow]) -> str:
    """Return the labels of near-duplicates if they differ."""
    labels = unique_labels(rows)
    if len(labels) == 1:
        return ""
    return f" with the labels {quote_all(labels)}"


RULES: Final[Mapping[str, Rule]] = {
    "schema_errors": partial(bad_rows, kind="schema"),
    "image_files": partial(bad_rows, kind="image_file"),
    "damaged_images": partial(
        undecodable_images,
        kinds=("damaged", "unreadable"),
        fix="replace the file or remove the row",
    ),
    "huge_images": partial(
        undecodable_images,
        kinds=("huge",),
        fix="shrink the image, raise the limit, or remove the row",
    ),
    "wrong_extensions": wrong_extensions,
    "conflicting_labels": conflicting_labels,
    "duplicates_across_splits": duplicates_across_splits,
    "duplicates_within_split": duplicates_within_split,
    "near_duplicates_across_splits": near_duplicates_across_splits,
    "near_duplicates_within_split": near_duplicates_within_split,
    "groups_across_splits": groups_across_splits,
    "unknown_labels": unknown_labels,
    "empty_labels": empty_labels,
    "similar_labels": similar_labels,
    "absent_classes": absent_classes,
    "rare_classes": rare_classes,
    "imbalance": imbalance,
    "outlying_sizes": outlying_sizes,
    "outlying_aspects": outlying_aspects,
    "dark_images": dark_images,
    "bright_images": bright_images,
    "blurred_images": blurred_images,
}
"""The function of each rule of `GateConfig`, in the same order."""


def apply_rules(
    inputs: GateInputs, config: GateConfig, policies: Sequence[Policy] = ("error", "warn")
) -> dict[str, list[Finding]]:
    """Apply the rules with one of some policies; return their findings, most severe first.

    Rules without findings are absent.
    """
    findings = {}
    for name in RULE_NAMES:
        if config.policy(name) in policies:
            rule = RULES[name]
            rule_findings = sorted(rule(inputs, config), key=lambda finding: -finding.severity)
            if rule_findings:
                findings[name] = rule_findings

    return findings
