import torch
from hypothesis import given
from hypothesis import strategies as st

from cls_data.shards.shuffling import permute_blocks, shuffle_in_windows

SHAPES = {
    "num_rows": st.integers(1, 400),
    "block_rows": st.integers(1, 30),
    "window": st.integers(1, 8),
    "seed": st.integers(0, 2**62),
}


@given(**SHAPES)
def test_an_epoch_is_a_permutation_of_the_rows(
    num_rows: int, block_rows: int, window: int, seed: int
) -> None:
    order = shuffle_in_windows(num_rows, block_rows, window, seed)
    assert order.rows.sort().values.tolist() == list(range(num_rows))
    num_blocks = -(-num_rows // block_rows)
    assert order.blocks.sort().values.tolist() == list(range(num_blocks))


@given(**SHAPES)
def test_rows_come_window_by_window(num_rows: int, block_rows: int, window: int, seed: int) -> None:
    order = shuffle_in_windows(num_rows, block_rows, window, seed)
    blocks = (order.rows // block_rows).tolist()
    start = 0
    for first in range(0, len(order.blocks), window):
        chosen = set(order.blocks[first : first + window].tolist())
        stop = start
        while stop < len(blocks) and blocks[stop] in chosen:
            stop += 1
        assert set(blocks[start:stop]) == chosen
        start = stop
    assert start == num_rows


@given(**SHAPES)
def test_the_order_depends_on_the_seed_alone(
    num_rows: int, block_rows: int, window: int, seed: int
) -> None:
    order = shuffle_in_windows(num_rows, block_rows, window, seed)
    torch.manual_seed(torch.seed())
    again = shuffle_in_windows(num_rows, block_rows, window, seed)
    assert torch.equal(order.rows, again.rows)
    assert torch.equal(order.blocks, permute_blocks(len(order.blocks), seed))


def test_rows_within_a_window_are_shuffled_across_its_blocks() -> None:
    order = shuffle_in_windows(1000, 10, 20, seed=0)
    first = order.rows[:20] // 10
    assert len(set(first.tolist())) > 10
    other = shuffle_in_windows(1000, 10, 20, seed=1)
    assert not torch.equal(order.rows, other.rows)
