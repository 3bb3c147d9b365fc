"""The gate's rules: each a function of the rows and of what was found in their image files.

A rule is a generator of findings. It neither reads files nor knows its policy.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cls_data.annotations import SPLITS, BadRow, Record
from cls_data.decoding import SUFFIXES
from cls_data.gate.config import GateConfig
from cls_data.gate.duplicates import look_alike
from cls_data.gate.inspection import Inspection

_LEAST_SPREAD: Final = float(np.log(1.25))


@dataclass(frozen=True)
class Row:
    """A record in its split, with the place of its image file in the inspection."""

    split: str
    record: Record
    file: int


@dataclass(frozen=True)
class Evidence:
    """All that the rules look at.

    Attributes:
        rows: the good rows of every split.
        bad: the bad rows of every split.
        files: what was found in the image files, each once.
    """

    rows: Sequence[Row]
    bad: Sequence[BadRow]
    files: Inspection

    @cached_property
    def counts(self) -> dict[str, Counter[str]]:
        """Rows of each label, for every split that has rows."""
        counts: dict[str, Counter[str]] = {}
        for row in self.rows:
            counts.setdefault(row.split, Counter())[row.record.label] += 1
        return {split: counts[split] for split in SPLITS if split in counts}

    @cached_property
    def by_file(self) -> list[list[Row]]:
        """The rows that name each image file."""
        rows: list[list[Row]] = [[] for _ in range(len(self.files))]
        for row in self.rows:
            rows[row.file].append(row)
        return rows

    @cached_property
    def decoded(self) -> list[int]:
        """The image files that could be decoded and that rows still name."""
        return [file for file, rows in enumerate(self.by_file) if rows and file not in self.files.problems]

    @cached_property
    def images(self) -> list[list[Row]]:
        """The rows of each image: those whose files have the same pixels (the same bytes then have, too)."""
        rows: dict[bytes, list[Row]] = {}
        for row in self.rows:
            if row.file not in self.files.problems:
                rows.setdefault(self.files.pixel_digests[row.file], []).append(row)
        return list(rows.values())

    @cached_property
    def same_images(self) -> list[list[Row]]:
        """The rows of each image that has several."""
        return [rows for rows in self.images if len(rows) > 1]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        text: what, led by `file:line` where it is about rows.
        sources: `file:line` of all rows concerned.
        leave_out: those of them without which nothing would be wrong here.
        files: places of the images to show, in the inspection.
        weight: by which the worst are shown first.
    """

    text: str
    sources: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    files: tuple[int, ...] = ()
    weight: float = 0.0


Rule = Callable[[Evidence, GateConfig], Iterator[Finding]]


def _schema_errors(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    yield from _bad_rows(evidence, "schema")


def _image_files(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    yield from _bad_rows(evidence, "image_file")


def _bad_rows(evidence: Evidence, kind: str) -> Iterator[Finding]:
    for bad in evidence.bad:
        if bad.kind == kind:
            yield Finding(f"{bad.source}: {bad.reason}", (bad.source,), (bad.source,))


def _damaged_images(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    yield from _undecodable(evidence, ("damaged", "unreadable"))


def _huge_images(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    yield from _undecodable(evidence, ("huge",))


def _undecodable(evidence: Evidence, kinds: Sequence[str]) -> Iterator[Finding]:
    for row in evidence.rows:
        kind, reason = evidence.files.problems.get(row.file, ("", ""))
        if kind in kinds:
            yield _about([row], reason, leave_out=[row], show=False)


def _wrong_extensions(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    for file in evidence.decoded:
        name, rows = evidence.files.formats[file], evidence.by_file[file]
        suffix = rows[0].record.path.suffix.lower()
        if name is not None and suffix not in SUFFIXES[name]:
            yield _about(rows, f"is a {name} file, but its name ends in {suffix!r}", leave_out=rows)


def _conflicting_labels(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    for rows in evidence.same_images:
        labels = {row.record.label for row in rows}
        if len(labels) < 2:
            continue
        # An empty label beside one name says that nobody named it then; between two names nobody here can choose.
        wrong = [row for row in rows if not row.record.label] if len(labels - {""}) == 1 else rows
        yield _about(rows, "one image, several labels: " + ", ".join(map(repr, sorted(labels))), leave_out=wrong)


def _duplicates_across_splits(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    for rows in evidence.same_images:
        splits = _splits(rows)
        if len(splits) > 1:
            # What is measured on stays whole: of test, valid, train the first keeps its copies.
            wrong = [row for row in rows if row.split != splits[-1]]
            yield _about(rows, f"one image in {' and '.join(splits)}", leave_out=wrong)


def _duplicates_within_split(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    for rows in evidence.same_images:
        for split in _splits(rows):
            within = [row for row in rows if row.split == split]
            if len(within) > 1 and len({row.record.label for row in within}) == 1:
                yield _about(within, f"one image {len(within)} times", leave_out=within[1:])


def _near_duplicates_across_splits(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    for rows in _look_alikes(evidence, config):
        splits = _splits(rows)
        if len(splits) > 1:
            wrong = [row for row in rows if row.split != splits[-1]]
            yield _about(rows, f"look alike, in {' and '.join(splits)}{_labels(rows)}", leave_out=wrong)


def _near_duplicates_within_split(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    for rows in _look_alikes(evidence, config):
        if len(_splits(rows)) == 1:
            yield _about(rows, f"look alike{_labels(rows)}", leave_out=rows[1:])


def _look_alikes(evidence: Evidence, config: GateConfig) -> Iterator[list[Row]]:
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


def _groups_across_splits(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    groups: dict[str, list[Row]] = {}
    for row in evidence.rows:
        if row.record.group is not None:
            groups.setdefault(row.record.group, []).append(row)
    for group, rows in groups.items():
        splits = _splits(rows)
        if len(splits) > 1:
            wrong = [row for row in rows if row.split != splits[-1]]
            counts = Counter(row.split for row in rows)
            where = " and ".join(f"{split} ({counts[split]} rows)" for split in splits)
            yield _about(rows, f"group {group!r} stands in {where}", leave_out=wrong, show=False)


def _unknown_labels(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    known = evidence.counts.get("train", Counter())
    for row in evidence.rows:
        if row.split != "train" and row.record.label not in known:
            yield _about([row], f"label {row.record.label!r} is in no row of train", leave_out=[row])


def _empty_labels(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    for split, counts in evidence.counts.items():
        rows = [row for row in evidence.rows if row.split == split and not row.record.label]
        if rows:
            text = f'the label of {len(rows)} of {counts.total()} rows of {split} is "", which makes it a class'
            yield _about(rows, text, leave_out=rows)


def _absent_classes(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    classes = set(evidence.counts.get("train", {}))
    for split, counts in evidence.counts.items():
        if absent := sorted(classes - set(counts)):
            names = ", ".join(map(repr, absent))
            yield Finding(f"{split} has no row of {len(absent)} of {len(classes)} classes: {names}")


def _rare_classes(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    for label, count in sorted(evidence.counts.get("train", Counter()).items(), key=lambda each: each[1]):
        if count < config.rare_class_under:
            yield Finding(f"class {label!r} has {count} rows in train", weight=-count)


def _imbalance(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    counts = evidence.counts.get("train", Counter()).most_common()
    if counts and counts[0][1] > config.imbalance_over * counts[-1][1]:
        (largest, most), (smallest, fewest) = counts[0], counts[-1]
        yield Finding(
            f"class {largest!r} has {most} rows in train, class {smallest!r} has {fewest}: "
            f"{most / fewest:.0f} times as many"
        )


def _outlying_sizes(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    width, height = _sides(evidence)
    far = _far_out(np.log(width * height) / 2, config.outlying_fences)
    small = np.minimum(width, height) < config.smallest_side
    usual = round(float(np.median(np.sqrt(width * height)))) if len(width) else 0
    yield from _unusual(evidence, np.where(small, np.inf, far), f"usual are about {usual} px a side")


def _outlying_aspects(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    width, height = _sides(evidence)
    usual = float(np.median(width / height)) if len(width) else 0
    far = _far_out(np.log(width / height), config.outlying_fences)
    yield from _unusual(evidence, far, f"usual is a width of {usual:.2f} times the height")


def _sides(evidence: Evidence) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sizes = evidence.files.sizes[np.array(evidence.decoded, np.int64)].astype(np.float64)
    return sizes[:, 0], sizes[:, 1]


def _far_out(values: NDArray[np.float64], fences: float) -> NDArray[np.float64]:
    """Return how far each value lies beyond the fences, 0 for those within."""
    if not len(values):
        return values
    low, high = np.quantile(values, [0.25, 0.75])
    reach = fences * max(high - low, _LEAST_SPREAD)
    far: NDArray[np.float64] = np.maximum(0, np.maximum(values - high - reach, low - reach - values))
    return far


def _unusual(evidence: Evidence, far: NDArray[np.float64], usual: str) -> Iterator[Finding]:
    for place in np.flatnonzero(far).tolist():
        file = evidence.decoded[place]
        width, height = evidence.files.sizes[file].tolist()
        text = f"{width}x{height} px; {usual}"
        yield _about(evidence.by_file[file], text, evidence.by_file[file], weight=float(far[place]))


def _dark_images(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    luma = evidence.files.luma
    yield from _measured(evidence, luma, config.dark_under - luma, "mean luma {:.0f} of 255")


def _bright_images(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    luma = evidence.files.luma
    yield from _measured(evidence, luma, luma - config.bright_over, "mean luma {:.0f} of 255")


def _blurred_images(evidence: Evidence, config: GateConfig) -> Iterator[Finding]:
    sharpness = evidence.files.sharpness
    yield from _measured(evidence, sharpness, config.blurred_under - sharpness, "variance of the Laplacian {:.1f}")


def _measured(
    evidence: Evidence, values: NDArray[np.float32], excess: NDArray[np.float32], text: str
) -> Iterator[Finding]:
    for file in evidence.decoded:
        if excess[file] > 0:
            rows = evidence.by_file[file]
            yield _about(rows, text.format(values[file]), rows, weight=float(excess[file]))


def _about(
    rows: Sequence[Row], text: str, leave_out: Sequence[Row] = (), *, show: bool = True, weight: float = 0.0
) -> Finding:
    first, *others = rows
    named = ", ".join(row.record.source for row in others[:4])
    more = f", … {len(others) - 4} more" if len(others) > 4 else ""
    also = f" (and {named}{more})" if others else ""
    return Finding(
        f"{first.record.source}: {first.record.id}: {text}{also}",
        tuple(row.record.source for row in rows),
        tuple(row.record.source for row in leave_out),
        tuple(dict.fromkeys(row.file for row in rows)) if show else (),
        weight or float(len(rows)),
    )


def _splits(rows: Sequence[Row]) -> list[str]:
    """Return the splits of some rows, train first and test last."""
    found = {row.split for row in rows}
    return [split for split in SPLITS if split in found]


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
    "outlying_sizes": _outlying_sizes,
    "outlying_aspects": _outlying_aspects,
    "dark_images": _dark_images,
    "bright_images": _bright_images,
    "blurred_images": _blurred_images,
}
"""A function for every rule of `GateConfig`, in its order."""
