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
    of one class without a group. Equal shares make folds.

    Raises:
        DataError: A share is not a positive number.
    """
    if not shares or not all(0 < share < math.inf for share in shares):
        raise DataError(f"shares {list(shares)}: expected a positive number for each split")

    total = sum(shares)
    normalized_shares = [share / total for share in shares]
    names = _name_groups(labels, groups)
    subsets = assign_groups(labels, names, normalized_shares, seed)
    return add_missing_classes_to_first(
        labels,
        names,
        subsets,
        min_groups=len(shares),
    )


def _name_groups(labels: Sequence[str], groups: Sequence[str | None]) -> list[Hashable]:
    """Name every group; a row without one is named by its class and its number within the class."""
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

    def by_number_of_groups(label: str) -> tuple[int, bytes]:
        num_groups = len(groups_of_class[label])
        return num_groups, _random_key(seed, label)

    subsets = range(len(shares))
    needs = _Needs(labels, shares)
    assigned: dict[Hashable, int] = {}
    for label in sorted(groups_of_class, key=by_number_of_groups):
        remaining = []
        missing = set(subsets)
        for group in groups_of_class[label]:
            if group in assigned:
                missing.discard(assigned[group])
            else:
                size = class_counts[group][label].bit_length()
                remaining.append((-size, _random_key(seed, group), group))
        remaining.sort(key=lambda item: item[:2])

        has_enough_groups = len(groups_of_class[label]) >= len(shares)
        for position, (_, _, group) in enumerate(remaining):
            counts = class_counts[group]
            # When only as many groups remain as subsets lack the class, those subsets get them.
            # But not beyond their share with mixed groups: rare classes would overfill small ones.
            num_remaining = len(remaining) - position
            candidates = []
            if has_enough_groups and num_remaining <= len(missing):
                is_mixed = len(counts) > 1
                for subset in missing:
                    if not is_mixed or needs.rows[subset] > 0:
                        candidates.append(subset)

            subset = needs.neediest_subset(counts, candidates or subsets)
            assigned[group] = subset
            missing.discard(subset)
            needs.subtract(counts, subset)

    return [assigned[group] for group in groups]


def _random_key(seed: int, name: Hashable) -> bytes:
    """Return a sort key that is random, but depends only on the arguments."""
    text = repr((seed, name))
    return hashlib.blake2b(text.encode()).digest()


class _Needs:
    """Rows that each subset still needs, in total and of each class."""

    def __init__(self, labels: Sequence[str], shares: Sequence[float]) -> None:
        self._totals = Counter(labels)
        num_rows = len(labels)
        self.rows = [share * num_rows for share in shares]
        self._rows_of_class = {}
        for label, total in self._totals.items():
            class_rows = [share * total for share in shares]
            self._rows_of_class[label] = class_rows

    def neediest_subset(self, counts: Counter[str], candidates: Iterable[int]) -> int:
        """Return the candidate with the greatest need for a group's classes."""
        fractions = []
        for label, count in sorted(counts.items()):
            fraction = count / self._totals[label]
            fractions.append((label, fraction))

        def need(subset: int) -> tuple[float, float, int]:
            class_needs = []
            for label, fraction in fractions:
                rows = self._rows_of_class[label][subset]
                class_needs.append(rows * fraction)
            return sum(class_needs), self.rows[subset], -subset

        return max(candidates, key=need)

    def subtract(self, counts: Counter[str], subset: int) -> None:
        """Record that a subset got a group."""
        for label, count in counts.items():
            class_rows = self._rows_of_class[label]
            class_rows[subset] -= count
            self.rows[subset] -= count


def add_missing_classes_to_first(
    labels: Sequence[str], groups: Sequence[Hashable], subsets: Sequence[int], min_groups: int
) -> list[int]:
    """Move the smallest group of each class that subset 0 lacks into subset 0.

    Classes with fewer than `min_groups` groups are left alone.
    """
    covered = set()
    for label, subset in zip(labels, subsets, strict=True):
        if subset == 0:
            covered.add(label)
    moved = _choose_smallest_groups(labels, groups, covered, min_groups)
    return _reassign(groups, subsets, moved, target=0)


def keep_single_fold_classes_in_train(
    labels: Sequence[str], groups: Sequence[str], subsets: Sequence[int], folds: int
) -> list[int]:
    """Move one group of each class that occurs in a single fold to subset `folds`, train of all."""
    first_fold: dict[str, int] = {}
    covered = set()
    for label, subset in zip(labels, subsets, strict=True):
        first = first_fold.setdefault(label, subset)
        if subset != first:
            covered.add(label)
    moved = _choose_smallest_groups(labels, groups, covered, min_groups=1)
    return _reassign(groups, subsets, moved, target=folds)


def _count_classes(
    labels: Sequence[str], groups: Sequence[Hashable]
) -> dict[Hashable, Counter[str]]:
    """Count the rows of each class in each group."""
    counts: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        group_counts = counts[group]
        group_counts[label] += 1
    return counts


def _choose_smallest_groups(
    labels: Sequence[str], groups: Sequence[Hashable], covered: set[str], min_groups: int
) -> set[Hashable]:
    """Choose small groups until every class with enough groups is covered."""
    class_counts = _count_classes(labels, groups)
    groups_of_class: dict[str, set[Hashable]] = defaultdict(set)
    for label, group in zip(labels, groups, strict=True):
        groups_of_class[label].add(group)

    def by_size(group: Hashable) -> tuple[int, str]:
        return class_counts[group].total(), repr(group)

    covered = set(covered)
    chosen = set()
    for label in sorted(groups_of_class):
        class_groups = groups_of_class[label]
        if label in covered or len(class_groups) < min_groups:
            continue
        smallest = min(class_groups, key=by_size)
        chosen.add(smallest)
        covered.update(class_counts[smallest])
    return chosen


def _reassign(
    groups: Sequence[Hashable], subsets: Sequence[int], moved: set[Hashable], target: int
) -> list[int]:
    """Return the subsets with the moved groups in `target`."""
    reassigned = []
    for group, subset in zip(groups, subsets, strict=True):
        if group in moved:
            reassigned.append(target)
        else:
            reassigned.append(subset)
    return reassigned
