"""Finds images that look alike, among many, by 64-bit hashes and small gray pictures."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BANDS = 4
"""Two hashes that differ in at most 3 of 64 bits agree in at least one of 4 bands of 16 bits."""

LARGEST_DISTANCE = _BANDS - 1


def look_alike(
    hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8], *, bits: int, levels: float
) -> list[list[int]]:
    """Return clusters of rows that look alike: linked by pairs, each cluster and the list of them in row order.

    Two rows are a pair when their hashes differ in at most `bits` bits and their thumbnails by at most `levels` in the
    mean of the absolute differences. Every such pair is found.

    Args:
        hashes: uint64 [N].
        thumbnails: uint8 [N, P].
        bits: 0 to 3.
        levels: of 0-255.

    Raises:
        ValueError: more bits than the search is exact for.
    """
    if not 0 <= bits <= LARGEST_DISTANCE:
        raise ValueError(f"bits must be 0 to {LARGEST_DISTANCE}, got {bits}")
    # Rows that are the same in both are joined first: ten thousand black frames would make 50 million pairs.
    both = np.hstack([hashes[:, None].view(np.uint8), thumbnails])
    _, firsts, inverse = np.unique(both, axis=0, return_index=True, return_inverse=True)
    clusters = _Clusters(len(firsts))
    hashes, thumbnails = hashes[firsts], thumbnails[firsts].astype(np.int16)
    means = thumbnails.mean(axis=1)
    for band in range(_BANDS):
        for one, other in _pairs_of_equal(_band(hashes, band), means, levels):
            difference = hashes[one] ^ hashes[other]
            near = np.bitwise_count(difference) <= bits
            for earlier in range(band):
                near &= _band(difference, earlier) != 0  # that band has yielded the others
            one, other = one[near], other[near]
            apart = clusters.roots(one) != clusters.roots(other)
            one, other = one[apart], other[apart]
            alike = np.abs(thumbnails[one] - thumbnails[other]).mean(axis=1) <= levels
            clusters.join(one[alike], other[alike])
    return _members(clusters.roots(np.arange(len(firsts)))[inverse.ravel()])


def _band(hashes: NDArray[np.uint64], band: int) -> NDArray[np.uint64]:
    bits: NDArray[np.uint64] = (hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)
    return bits


def _pairs_of_equal(
    keys: NDArray[np.uint64], means: NDArray[np.float64], levels: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield all pairs of places with equal keys and near means: neighbours in sorted order, and so on.

    Two pictures differ by at least as much as their means do. Sorting by these keeps sets in check whose images all
    have the same border, and so the same key.
    """
    order = np.lexsort((means, keys))
    keys, means = keys[order], means[order]
    starts = np.arange(len(keys))
    for offset in range(1, len(keys)):
        starts = starts[starts + offset < len(keys)]
        ends = starts + offset
        starts = starts[(keys[starts] == keys[ends]) & (means[ends] - means[starts] <= levels)]
        if not len(starts):
            return
        yield order[starts], order[starts + offset]


def _members(roots: NDArray[np.int64]) -> list[list[int]]:
    members: dict[int, list[int]] = {}
    for row, root in enumerate(roots.tolist()):
        members.setdefault(root, []).append(row)
    return [rows for rows in members.values() if len(rows) > 1]


class _Clusters:
    """Disjoint sets of rows."""

    def __init__(self, length: int) -> None:
        self._parent = np.arange(length)

    def roots(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        found = self._parent[rows]
        while np.any(found != (above := self._parent[found])):
            found = above
        self._parent[rows] = found
        return found

    def join(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        for first, second in zip(one.tolist(), other.tolist(), strict=True):
            self._parent[self._root(first)] = self._root(second)

    def _root(self, row: int) -> int:
        while (above := int(self._parent[row])) != row:
            self._parent[row] = row = int(self._parent[above])
        return row
