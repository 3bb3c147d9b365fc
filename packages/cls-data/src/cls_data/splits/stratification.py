"""Stratified assignment of whole groups to subsets (splits or folds). Pure functions, no files."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

from cls_data.errors import DataError


def stratify_groups(
    labels: Sequence[str], groups: Sequence[str | None], shares: Sequence[float], seed: int
) -> list[int]:
    """Assign each row to a subset, numbered from 0, and return the subset of each row.

    Rows of one group get the same subset; a row whose group is None is its own group. The algorithm
    is greedy. It starts with the classes that have the fewest groups, and within a class with the
    largest groups (sizes within the same power of two are in random order). Each group goes to the
    subset with the greatest unmet need for the group's classes, as a fraction of each class.

    A class with at least as many groups as there are subsets has rows in subset 0, and in all other
    subsets unless groups that mix classes prevent it. If no group mixes classes, no subset exceeds
    its share of a class by more than the largest group. The order of rows matters only among rows
    of one class without a group.

    Args:
        labels: Class of each row.
        groups: Group of each row.
        shares: Relative size of each subset; equal shares make folds.
        seed: Seed of the random order.

    Raises:
        DataError: A share is not a positive number.
    """
    if not shares or not all(0 < share < math.inf for share in shares):
        raise DataError(f"shares {list(shares)}: expected a positive number for each split")
    keys = _name_groups(labels, groups)
    total = sum(shares)
    subsets = assign_groups(labels, keys, [share / total for share in shares], seed)
    return add_missing_classes_to_first(labels, keys, subsets, min_groups=len(shares))


def _name_groups(labels: Sequence[str], groups: Sequence[str | None]) -> list[Hashable]:
    """Name every group.

    A row without a group is named by its class and its number within the class, so that rows of
    other classes have no influence.
    """
    counts: Counter[str] = Counter()
    names: list[Hashable] = []
    for label, group in zip(labels, groups, strict=True):
        if group is not None:
            names.append((group,))
        else:
            names.append((label, counts[label]))
            counts[label] += 1
    return names


def assign_groups(
    labels: Sequence[str], groups: Sequence[Hashable], shares: Sequence[float], seed: int
) -> list[int]:
    """Assign as `stratify_groups` does, but without adding missing classes to subset 0."""
    class_counts = _count_classes(labels, groups)
    groups_of_class: dict[str, list[Hashable]] = defaultdict(list)
    for group, counts in class_counts.items():
        for label in counts:
            groups_of_class[label].append(group)

    def random_order(name: Hashable) -> bytes:
        return hashlib.blake2b(repr((seed, name)).encode()).digest()

    needs = _Needs(labels, shares)
    subset_of: dict[Hashable, int] = {}
    for label in sorted(
        groups_of_class, key=lambda label: (len(groups_of_class[label]), random_order(label))
    ):
        class_groups = groups_of_class[label]
        unassigned = [group for group in class_groups if group not in subset_of]
        unassigned.sort(
            key=lambda group: (-class_counts[group][label].bit_length(), random_order(group))
        )
        taken = {subset_of[group] for group in class_groups if group in subset_of}
        missing = set(range(len(shares))) - taken
        has_enough_groups = len(class_groups) >= len(shares)
        for position, group in enumerate(unassigned):
            counts = class_counts[group]
            # When only as many groups remain as subsets lack the class, those subsets get them.
            # But not beyond their share with mixed groups: rare classes would overfill small ones.
            must_cover = has_enough_groups and len(unassigned) - position <= len(missing)
            candidates = []
            if must_cover:
                candidates = needs.subsets_with_room(missing, is_mixed=len(counts) > 1)
            subset = needs.neediest_subset(counts, candidates or range(len(shares)))
            subset_of[group] = subset
            missing.discard(subset)
            needs.subtract(counts, subset)
    return [subset_of[group] for group in groups]


class _Needs:
    """Rows that each subset still needs, in total and of each class."""

    def __init__(self, labels: Sequence[str], shares: Sequence[float]) -> None:
        self._totals = Counter(labels)
        self._rows = [share * len(labels) for share in shares]
        self._rows_of_class = {}
        for label, total in self._totals.items():
            self._rows_of_class[label] = [share * total for share in shares]

    def subsets_with_room(self, subsets: Iterable[int], *, is_mixed: bool) -> list[int]:
        """Return the subsets that may take another group; one of a single class always fits."""
        return [subset for subset in subsets if not is_mixed or self._rows[subset] > 0]

    def neediest_subset(self, counts: Counter[str], candidates: Iterable[int]) -> int:
        """Return the candidate with the greatest need for a group's classes."""
        fractions = []
        for label, count in sorted(counts.items()):
            fractions.append((self._rows_of_class[label], count / self._totals[label]))

        def need(subset: int) -> tuple[float, float, int]:
            class_need = sum(rows[subset] * fraction for rows, fraction in fractions)
            return class_need, self._rows[subset], -subset

        return max(candidates, key=need)

    def subtract(self, counts: Counter[str], subset: int) -> None:
        """Record that a subset got a group."""
        for label, count in counts.items():
            self._rows_of_class[label][subset] -= count
            self._rows[subset] -= count


def add_missing_classes_to_first(
    labels: Sequence[str], groups: Sequence[Hashable], subsets: Sequence[int], min_groups: int
) -> list[int]:
    """Move the smallest group of each class that subset 0 lacks into subset 0.

    Classes with fewer than `min_groups` groups are left alone.
    """
    covered = {label for label, subset in zip(labels, subsets, strict=True) if subset == 0}
    moved = _choose_smallest_groups(labels, groups, covered, min_groups)
    return _reassign(groups, subsets, moved, 0)


def keep_single_fold_classes_in_train(
    labels: Sequence[str], groups: Sequence[str], subsets: Sequence[int], folds: int
) -> list[int]:
    """Take one group of each class that occurs in a single fold out of all folds.

    Its subset becomes `folds`, which is no fold's validation set, so every train set has the class.
    """
    folds_of_class: dict[str, set[int]] = defaultdict(set)
    for label, subset in zip(labels, subsets, strict=True):
        folds_of_class[label].add(subset)
    covered = {label for label, found_in in folds_of_class.items() if len(found_in) > 1}
    moved = _choose_smallest_groups(labels, groups, covered, min_groups=1)
    return _reassign(groups, subsets, moved, folds)


def _count_classes(
    labels: Sequence[str], groups: Sequence[Hashable]
) -> dict[Hashable, Counter[str]]:
    """Count the rows of each class in each group."""
    counts: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        counts[group][label] += 1
    return counts


def _choose_smallest_groups(
    labels: Sequence[str], groups: Sequence[Hashable], covered: set[str], min_groups: int
) -> set[Hashable]:
    """Choose small groups until every class with enough groups is covered."""
    groups_of_class: dict[str, set[Hashable]] = defaultdict(set)
    for label, group in zip(labels, groups, strict=True):
        groups_of_class[label].add(group)
    class_counts = _count_classes(labels, groups)
    sizes = Counter(groups)
    covered = set(covered)
    chosen = set()
    for label in sorted(groups_of_class):
        if label not in covered and len(groups_of_class[label]) >= min_groups:
            smallest = min(groups_of_class[label], key=lambda group: (sizes[group], repr(group)))
            chosen.add(smallest)
            covered.update(class_counts[smallest])
    return chosen


def _reassign(
    groups: Sequence[Hashable], subsets: Sequence[int], moved: set[Hashable], target: int
) -> list[int]:
    """Return the subsets with the moved groups in `target`."""
    return [
        target if group in moved else subset for group, subset in zip(groups, subsets, strict=True)
    ]
