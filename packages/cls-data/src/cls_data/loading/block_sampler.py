"""Training batches of rows that are read in blocks of shards."""

from collections.abc import Iterator

from torch import Tensor

from cls_data.config import DataModuleConfig
from cls_data.images.store import RowSource
from cls_data.loading.samplers import BatchPlan, EpochSampler
from cls_data.shards.rows import ShardRows
from cls_data.shards.shuffling import permute_blocks, shuffle_in_windows


class BlockSampler(EpochSampler):
    """Training batches of one rank, whose rows are shuffled within windows of blocks.

    As with `EpochSampler`, the batches of all ranks together depend on seed and epoch alone.

    Args:
        rows: The rows, whose cache is told which blocks come next.
        window: Blocks of a window.
        batch_size: Rows per batch and rank.
        seed: Seed of the run.
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        rows: ShardRows,
        window: int,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(rows.index.rows, batch_size, seed, rank=rank, world_size=world_size)
        self._rows = rows
        self._window = window

    def __iter__(self) -> Iterator[BatchPlan]:
        number = self.start
        for plan in super().__iter__():
            self._rows.cache.advance(number * self._step_size)
            number += 1
            yield plan

    def _order(self) -> Tensor:
        index = self._rows.index
        order = shuffle_in_windows(
            index.rows, index.block_rows, self._window, self._order_seed(self.epoch)
        )
        following = permute_blocks(index.num_blocks, self._order_seed(self.epoch + 1))
        self._rows.cache.plan(order.blocks, following, self.start * self._step_size)
        return order.rows


def build_training_sampler(
    rows: RowSource,
    length: int,
    config: DataModuleConfig,
    weights: Tensor | None,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> EpochSampler:
    """Return the sampler of training batches for rows in an image store or in shards.

    Args:
        rows: The stored rows.
        length: Number of rows.
        config: Batch size, seed, and window.
        weights: float [length], relative sampling frequency of each row; None to shuffle.
        rank: Rank of this process.
        world_size: Number of processes.
    """
    batch_size = config.rank_batch_size(world_size)
    if isinstance(rows, ShardRows):
        return BlockSampler(
            rows,
            config.shard_window,
            batch_size,
            config.seed,
            rank=rank,
            world_size=world_size,
        )
    return EpochSampler(
        length,
        batch_size,
        config.seed,
        weights=weights,
        rank=rank,
        world_size=world_size,
    )
