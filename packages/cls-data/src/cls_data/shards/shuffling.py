"""Order of rows that are read in blocks: a pure function of seed and epoch."""

from typing import NamedTuple

import torch
from torch import Tensor


class BlockOrder(NamedTuple):
    """An epoch.

    Attributes:
        blocks: Permutation of the blocks, int64 [K].
        rows: Permutation of the rows, int64 [N].
    """

    blocks: Tensor
    rows: Tensor


def permute_blocks(num_blocks: int, seed: int) -> Tensor:
    """Return the order of the blocks in an epoch: int64 [K]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(num_blocks, generator=generator)


def shuffle_in_windows(num_rows: int, block_rows: int, window: int, seed: int) -> BlockOrder:
    """Permute the blocks, then the rows within each window of `window` successive blocks.

    A batch has rows of one window, or of two, so only their blocks must be at hand. Rows of one
    block always stay within one window of each other; a full shuffle has no such limit.

    Args:
        num_rows: Rows of the split, N.
        block_rows: Rows of a block; the last one may have fewer.
        window: Blocks of a window.
        seed: Seed of the epoch.
    """
    num_blocks = -(-num_rows // block_rows)
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randperm(num_blocks, generator=generator)  # as permute_blocks
    ranks = torch.empty_like(blocks)
    ranks[blocks] = torch.arange(num_blocks)

    rows = torch.randperm(num_rows, generator=generator)
    windows = ranks[rows // block_rows] // window
    order = torch.argsort(windows, stable=True)
    return BlockOrder(blocks, rows[order])
