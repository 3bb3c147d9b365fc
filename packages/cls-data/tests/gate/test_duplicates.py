import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cls_data.gate.duplicates import LARGEST_DISTANCE, look_alike


def clusters_by_brute_force(
    hashes: list[int], thumbnails: np.ndarray, bits: int, levels: float
) -> list[list[int]]:
    count = len(hashes)
    root = list(range(count))
    for one in range(count):
        for other in range(one):
            distance = np.abs(thumbnails[one].astype(int) - thumbnails[other].astype(int)).mean()
            if (hashes[one] ^ hashes[other]).bit_count() <= bits and distance <= levels:
                old, new = sorted((root[one], root[other]), reverse=True)
                root = [new if each == old else each for each in root]
    members = [[row for row in range(count) if root[row] == each] for each in dict.fromkeys(root)]
    return [rows for rows in members if len(rows) > 1]


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 60),
    bits=st.integers(0, LARGEST_DISTANCE),
    levels=st.sampled_from([0.0, 0.5, 1.5, 4.0, 255.0]),
)
@settings(max_examples=150, deadline=None)
def test_every_pair_that_looks_alike_is_found_and_no_other(
    seed: int, count: int, bits: int, levels: float
) -> None:
    # A few hashes, each with some bits turned, and thumbnails that nearly agree: pairs on either side of every limit.
    rng = np.random.default_rng(seed)
    some = rng.integers(0, 2**64, 4, dtype=np.uint64)
    turned = np.array(
        [
            sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 5), False))
            for _ in range(count)
        ]
    )
    hashes = some[rng.integers(0, 4, count)] ^ turned.astype(np.uint64)
    thumbnails = (100 + rng.integers(0, 6, (count, 1)) + rng.integers(0, 3, (count, 9))).astype(
        np.uint8
    )
    found = look_alike(hashes, thumbnails, bits=bits, levels=levels)
    assert found == clusters_by_brute_force(hashes.tolist(), thumbnails, bits, levels)


def test_a_chain_of_pairs_is_one_cluster() -> None:
    hashes = np.array([0b0, 0b111, 0b111_111, 1 << 60 | 0xFFFF], np.uint64)
    assert look_alike(hashes, np.zeros((4, 9), np.uint8), bits=3, levels=0) == [[0, 1, 2]]


def test_levels_count_up_and_down_alike() -> None:
    thumbnails = np.array([[0] * 4, [255] * 4], np.uint8)
    hashes = np.zeros(2, np.uint64)
    assert look_alike(hashes, thumbnails, bits=0, levels=254.9) == []
    assert look_alike(hashes, thumbnails, bits=0, levels=255) == [[0, 1]]


def test_ten_thousand_identical_rows_are_quick() -> None:
    hashes = np.zeros(10_000, np.uint64)
    start = time.perf_counter()
    assert look_alike(hashes, np.zeros((10_000, 144), np.uint8), bits=3, levels=6) == [
        list(range(10_000))
    ]
    assert time.perf_counter() - start < 2


def test_five_thousand_flat_pictures_of_other_levels_are_quick() -> None:
    # Black frames of a broadcast, each with noise of its own: one hash, no two thumbnails the same.
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 4, (5_000, 144), dtype=np.uint8)
    start = time.perf_counter()
    assert look_alike(np.zeros(5_000, np.uint64), thumbnails, bits=3, levels=6) == [
        list(range(5_000))
    ]
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("bits", [-1, LARGEST_DISTANCE + 1])
def test_more_bits_than_the_search_is_exact_for_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="bits must be 0 to 3"):
        look_alike(np.zeros(2, np.uint64), np.zeros((2, 9), np.uint8), bits=bits, levels=0)
