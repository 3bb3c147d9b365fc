"""Deals rows into parts: groups stay whole, and every class is spread over the parts. Pure functions, no files."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from cls_data.errors import DataError


def stratified_groups(
    labels: Sequence[str], groups: Sequence[str | None], shares: Sequence[float], seed: int
) -> list[int]:
    """Return the part, from 0, that each row goes into: a function of the arguments alone.

    Rows of one group share a part; None is a group of its own. Classes with the fewest groups come first, within them
    the largest groups (sizes within one power of two count as equal, and the seed orders them), each into the part
    with the greatest unmet need of the group's classes, each class by its fraction. A class with at least as many
    groups as there are parts has a row in part 0, and in every other part as far as groups that mix classes allow.
    Where no group mixes classes, no part gets more of a class than its share and the largest group. The order of the
    rows matters only for rows of one class without a group, which nothing else tells apart.

    Args:
        labels: class of each row.
        groups: group of each row.
        shares: relative size of each part; equal shares make folds.
        seed: of the order among groups of like size.

    Raises:
        DataError: a share is not a positive number.
    """
    if not shares or not all(0 < share < math.inf for share in shares):
        raise DataError(f"shares {list(shares)}: expected a positive number for each part")
    keys = _keys(labels, groups)
    parts = deal(labels, keys, [share / sum(shares) for share in shares], seed)
    return cover_first(labels, keys, parts, least_groups=len(shares))


def _keys(labels: Sequence[str], groups: Sequence[str | None]) -> list[Hashable]:
    """Name every group: those without a name by class and number within it, so that other classes do not matter."""
    numbers: Counter[str] = Counter()
    keys: list[Hashable] = []
    for label, group in zip(labels, groups, strict=True):
        keys.append((group,) if group is not None else (label, numbers[label]))
        numbers[label] += group is None
    return keys


def deal(
    labels: Sequence[str], keys: Sequence[Hashable], shares: Sequence[float], seed: int
) -> list[int]:
    """Return the part of each row, as `stratified_groups` does, but part 0 is like any other."""
    contents: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for label, key in zip(labels, keys, strict=True):
        contents[key][label] += 1
    holders: dict[str, list[Hashable]] = defaultdict(list)
    for key, content in contents.items():
        for label in content:
            holders[label].append(key)
    totals = Counter(labels)
    need = {label: [share * total for share in shares] for label, total in totals.items()}
    room = [share * len(labels) for share in shares]
    chance = {
        name: hashlib.blake2b(repr((seed, name)).encode()).digest()
        for name in [*contents, *holders]
    }
    part_of: dict[Hashable, int] = {}
    for label in sorted(holders, key=lambda label: (len(holders[label]), chance[label])):
        waiting = [key for key in holders[label] if key not in part_of]
        waiting.sort(key=lambda key: (-contents[key][label].bit_length(), chance[key]))
        missing = set(range(len(shares))) - {
            part_of[key] for key in holders[label] if key in part_of
        }
        enough = len(holders[label]) >= len(shares)
        for position, key in enumerate(waiting):
            # Once the groups left are no more than the parts without any, those parts get them; but rare classes in
            # mixed groups would in this way fill small parts far over their shares.
            last_chance = enough and len(waiting) - position <= len(missing)
            choice = (
                [part for part in missing if len(contents[key]) == 1 or room[part] > 0]
                if last_chance
                else []
            )
            weights = [
                (need[name], count / totals[name]) for name, count in sorted(contents[key].items())
            ]
            part = max(
                choice or range(len(shares)),
                key=lambda part: (
                    sum(row[part] * weight for row, weight in weights),
                    room[part],
                    -part,
                ),
            )
            part_of[key] = part
            missing.discard(part)
            for name, count in contents[key].items():
                need[name][part] -= count
                room[part] -= count
    return [part_of[key] for key in keys]


def cover_first(
    labels: Sequence[str], keys: Sequence[Hashable], parts: Sequence[int], least_groups: int
) -> list[int]:
    """Move the smallest group of each class that part 0 lacks there, if the class has at least so many groups."""
    held = {label for label, part in zip(labels, parts, strict=True) if part == 0}
    moved = _smallest_holders(labels, keys, held, least_groups)
    return [0 if key in moved else part for key, part in zip(keys, parts, strict=True)]


def stay_in_train(
    labels: Sequence[str], groups: Sequence[str], parts: Sequence[int], folds: int
) -> list[int]:
    """Take one group of each class that lies in a single fold out of the folds: its part becomes `folds`."""
    found: dict[str, set[int]] = defaultdict(set)
    for label, part in zip(labels, parts, strict=True):
        found[label].add(part)
    spread = {label for label, where in found.items() if len(where) > 1}
    stay = _smallest_holders(labels, groups, spread, least_groups=1)
    return [folds if group in stay else part for group, part in zip(groups, parts, strict=True)]


def _smallest_holders(
    labels: Sequence[str], keys: Sequence[Hashable], covered: set[str], least_groups: int
) -> set[Hashable]:
    """Choose groups until every class with enough groups is covered, by those at the start or by one chosen."""
    holders: dict[str, set[Hashable]] = defaultdict(set)
    contents: dict[Hashable, set[str]] = defaultdict(set)
    for label, key in zip(labels, keys, strict=True):
        holders[label].add(key)
        contents[key].add(label)
    sizes = Counter(keys)
    covered = set(covered)
    chosen = set()
    for label in sorted(holders):
        if label not in covered and len(holders[label]) >= least_groups:
            key = min(holders[label], key=lambda key: (sizes[key], repr(key)))
            chosen.add(key)
            covered |= contents[key]
    return chosen
