import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cls_data.gate.duplicates import MAX_HASH_DISTANCE, find_near_duplicates


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
    bits=st.integers(0, MAX_HASH_DISTANCE),
    levels=st.sampled_from([0.0, 0.5, 1.5, 4.0, 255.0]),
)
@settings(max_examples=150, deadline=None)
def test_clusters_match_a_brute_force_search(
    seed: int, count: int, bits: int, levels: float
) -> None:
    # Few hashes with some bits flipped, and similar thumbnails: pairs on both sides of each limit.
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2**64, 4, dtype=np.uint64)
    flipped = np.array(
        [
            sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 5), False))
            for _ in range(count)
        ]
    )
    hashes = base[rng.integers(0, 4, count)] ^ flipped.astype(np.uint64)
    thumbnails = (100 + rng.integers(0, 6, (count, 1)) + rng.integers(0, 3, (count, 9))).astype(
        np.uint8
    )
    clusters = find_near_duplicates(hashes, thumbnails, bits=bits, levels=levels)
    assert clusters == clusters_by_brute_force(hashes.tolist(), thumbnails, bits, levels)


def test_chain_of_pairs_is_one_cluster() -> None:
    hashes = np.array([0b0, 0b111, 0b111_111, 1 << 60 | 0xFFFF], np.uint64)
    assert find_near_duplicates(hashes, np.zeros((4, 9), np.uint8), bits=3, levels=0) == [[0, 1, 2]]


def test_thumbnail_distance_is_symmetric() -> None:
    thumbnails = np.array([[0] * 4, [255] * 4], np.uint8)
    hashes = np.zeros(2, np.uint64)
    assert find_near_duplicates(hashes, thumbnails, bits=0, levels=254.9) == []
    assert find_near_duplicates(hashes, thumbnails, bits=0, levels=255) == [[0, 1]]


def test_search_is_fast_for_ten_thousand_identical_rows() -> None:
    hashes = np.zeros(10_000, np.uint64)
    start = time.process_time()
    assert find_near_duplicates(hashes, np.zeros((10_000, 144), np.uint8), bits=3, levels=6) == [
        list(range(10_000))
    ]
    assert time.process_time() - start < 2


def test_search_is_fast_for_five_thousand_noisy_black_frames() -> None:
    # Black frames of a broadcast with independent noise: one hash, all thumbnails different.
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 4, (5_000, 144), dtype=np.uint8)
    start = time.process_time()
    assert find_near_duplicates(np.zeros(5_000, np.uint64), thumbnails, bits=3, levels=6) == [
        list(range(5_000))
    ]
    assert time.process_time() - start < 10


@pytest.mark.parametrize("bits", [-1, MAX_HASH_DISTANCE + 1])
def test_search_rejects_bits_outside_0_to_3(bits: int) -> None:
    with pytest.raises(ValueError, match="bits must be 0 to 3"):
        find_near_duplicates(
            np.zeros(2, np.uint64), np.zeros((2, 9), np.uint8), bits=bits, levels=0
        )
