"""Near-duplicate search among many images, by 64-bit hashes and gray thumbnails."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BANDS = 4
"""Two hashes that differ in at most 3 of 64 bits agree in at least one of 4 bands of 16 bits."""

MAX_HASH_DISTANCE = _BANDS - 1

IndexPairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def find_near_duplicates(
    hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8], *, bits: int, levels: float
) -> list[list[int]]:
    """Return clusters of images that look alike, each as a sorted list of row indices.

    Two images are a pair if their hashes differ in at most `bits` bits and the mean absolute
    difference of their thumbnails is at most `levels`. The search finds every pair; a cluster is
    a connected component of pairs. Clusters are sorted by their first row.

    Args:
        hashes: uint64 [N].
        thumbnails: uint8 [N, P].
        bits: 0 to 3; the search would not be exact for more.
        levels: 0 to 255.
    """
    if not 0 <= bits <= MAX_HASH_DISTANCE:
        raise ValueError(f"bits must be 0 to {MAX_HASH_DISTANCE}, got {bits}")
    # Merge identical rows first: ten thousand black frames would make 50 million pairs.
    keys = np.hstack([hashes[:, None].view(np.uint8), thumbnails])
    _, first_rows, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    hashes = hashes[first_rows]
    thumbnails = thumbnails[first_rows].astype(np.int16)
    means = thumbnails.mean(axis=1)

    clusters = _DisjointSets(len(first_rows))
    for band in range(_BANDS):
        band_bits = _band(hashes, band)
        for one, other in _pairs_with_equal_keys(band_bits, means, levels):
            is_near = _is_near(hashes[one] ^ hashes[other], band, bits)
            one = one[is_near]
            other = other[is_near]

            is_separate = clusters.roots(one) != clusters.roots(other)
            one = one[is_separate]
            other = other[is_separate]

            difference = np.abs(thumbnails[one] - thumbnails[other])
            is_alike = difference.mean(axis=1) <= levels
            clusters.join(one[is_alike], other[is_alike])

    unique_rows = np.arange(len(first_rows))
    roots = clusters.roots(unique_rows)
    return _group_by_root(roots[inverse.ravel()])


def _band(hashes: NDArray[np.uint64], band: int) -> NDArray[np.uint64]:
    shift = np.uint64(16 * band)
    mask = np.uint64(0xFFFF)
    bits: NDArray[np.uint64] = (hashes >> shift) & mask
    return bits


def _is_near(difference: NDArray[np.uint64], band: int, bits: int) -> NDArray[np.bool_]:
    """Return which pairs have few different bits and no equal band before this one."""
    is_near: NDArray[np.bool_] = np.bitwise_count(difference) <= bits
    for earlier in range(band):
        # A pair that agrees in an earlier band was yielded there.
        is_near &= _band(difference, earlier) != 0

    return is_near


def _pairs_with_equal_keys(
    keys: NDArray[np.uint64], means: NDArray[np.float64], levels: float
) -> Iterator[IndexPairs]:
    """Yield all pairs of rows with equal keys and means at most `levels` apart.

    Two thumbnails differ by at least as much as their means, so sorting by the mean limits the
    pairs in sets whose images share a border, and thus a key. The first batch has neighbors in
    sorted order, the second one rows two positions apart, and so on.
    """
    order = np.lexsort((means, keys))
    keys = keys[order]
    means = means[order]

    starts = np.arange(len(keys))
    for offset in range(1, len(keys)):
        starts = starts[starts + offset < len(keys)]
        ends = starts + offset
        has_equal_key = keys[starts] == keys[ends]
        has_near_mean = means[ends] - means[starts] <= levels
        starts = starts[has_equal_key & has_near_mean]
        if len(starts) == 0:
            break
        ends = starts + offset
        yield order[starts], order[ends]


def _group_by_root(roots: NDArray[np.int64]) -> list[list[int]]:
    members: dict[int, list[int]] = defaultdict(list)
    for row, root in enumerate(roots.tolist()):
        members[root].append(row)
    return [rows for rows in members.values() if len(rows) > 1]


class _DisjointSets:
    """Union-find over row indices."""

    def __init__(self, length: int) -> None:
        self._parent = np.arange(length)

    def roots(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the root of each row, and shorten the paths to it."""
        roots = self._parent[rows]
        parents = self._parent[roots]
        while np.any(roots != parents):
            roots = parents
            parents = self._parent[roots]

        self._parent[rows] = roots
        return roots

    def join(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        for first, second in zip(one.tolist(), other.tolist(), strict=True):
            root = self._root(first)
            self._parent[root] = self._root(second)

    def _root(self, row: int) -> int:
        parent = int(self._parent[row])
        while parent != row:
            grandparent = int(self._parent[parent])
            self._parent[row] = grandparent
            row = grandparent
            parent = int(self._parent[row])
        return row
