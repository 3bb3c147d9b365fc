"""Batch samplers that are pure functions of (seed, epoch, batch number, rank).

They keep no state between epochs, so a resumed run sees the same batches as an uninterrupted one.

Each rank gets its own share of the rows. The samplers subclass `DistributedSampler` only because
Lightning would wrap any other sampler in one, which would split the shares again and drop rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from cls_data.loading.batches import BatchShare

_ORDER_STREAM = 1
_AUGMENTATION_STREAM = 2
"""Random streams. Without these tags, equal seeds would give equal streams."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The rows of one batch, int64 [B], and the seed of its augmentation; None for evaluation.

    `share` is set if several ranks share the batch.
    """

    index: Tensor
    seed: int | None
    share: BatchShare | None = None


class EpochSampler(DistributedSampler[BatchPlan]):
    """Training batches of one rank.

    An epoch is a permutation of the rows, or with weights a draw of equally many rows with
    replacement. An incomplete last batch is dropped (batch norm fails on a batch of one) unless it
    is the only one; which rows are dropped changes with every epoch. All ranks get the same number
    of batches. A rank may get an empty batch if there are fewer rows than ranks.

    Args:
        length: Rows of the split.
        batch_size: Rows per batch and rank.
        seed: Seed of the run.
        weights: float [length], relative sampling frequency of each row; None to shuffle.
        rank: Rank of this process.
        world_size: Number of processes; a step takes `batch_size * world_size` rows.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        *,
        weights: Tensor | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        # Skip the parent's constructor, which requires a dataset.
        self._length = length
        self._step_size = batch_size * world_size
        self._seed = seed
        self._weights = weights
        self._rank = rank
        self._world_size = world_size
        self.epoch = 0
        self.start = 0
        """Number of the first batch, above 0 to resume in the middle of an epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        full_batches = self._length // self._step_size
        return max(1, full_batches)

    def __iter__(self) -> Iterator[BatchPlan]:
        order = self._order()
        for number in range(self.start, len(self)):
            start = number * self._step_size
            stop = start + self._step_size
            step = order[start:stop]
            if self._world_size == 1:
                yield BatchPlan(step, self._augmentation_seed(number, rank=0))
                continue

            share = BatchShare(
                seed=self._augmentation_seed(number, rank=0),
                num_samples=len(step),
                rank=self._rank,
                world_size=self._world_size,
            )
            rank_seed = self._augmentation_seed(number, rank=self._rank)
            yield BatchPlan(step[share.rows], rank_seed, share)

    def _augmentation_seed(self, batch: int, *, rank: int) -> int:
        return _derive_seed(_AUGMENTATION_STREAM, self._seed, self.epoch, batch, rank)

    def _order_seed(self, epoch: int) -> int:
        return _derive_seed(_ORDER_STREAM, self._seed, epoch)

    def _order(self) -> Tensor:
        generator = torch.Generator().manual_seed(self._order_seed(self.epoch))
        if self._weights is None:
            return torch.randperm(self._length, generator=generator)
        return _draw_rows(self._weights, self._length, generator)


class EvaluationSampler(DistributedSampler[BatchPlan]):
    """Every row once, in order; the ranks share each batch, and have equally many batches.

    Args:
        length: Rows of the split, at least one for each rank.
        batch_size: Rows per batch, over all ranks.
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(self, length: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        # Skip the parent's constructor, which repeats rows to give all ranks equally many.
        self._length = length
        self._batch_size = max(batch_size, world_size)
        self._rank = rank
        self._world_size = world_size

    def __len__(self) -> int:
        full_batches, rest = divmod(self._length, self._batch_size)
        if full_batches == 0:
            return 1
        # Too few rows for a row on each rank belong to the batch before them.
        has_own_batch = rest >= self._world_size
        return full_batches + has_own_batch

    def __iter__(self) -> Iterator[BatchPlan]:
        last = len(self) - 1
        for number in range(len(self)):
            start = number * self._batch_size
            stop = self._length if number == last else start + self._batch_size
            rows = torch.arange(start + self._rank, stop, self._world_size)
            yield BatchPlan(rows, seed=None)


def _draw_rows(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw rows with replacement by their weights: int64 [count] for float [N].

    torch.multinomial stops at 2^24 rows, and sums the weights of float32 in float32: among 10
    million rows, light ones late in the order are never drawn. In float64 it draws the same rows.
    """
    cumulative = torch.cumsum(weights.to(torch.float64), dim=0)
    draws = torch.rand(count, dtype=torch.float64, generator=generator)
    # A draw that equals the sum of all rows before it belongs to the next row of weight above 0.
    return torch.searchsorted(cumulative, draws * cumulative[-1], right=True)


def _derive_seed(*values: int) -> int:
    """Hash integers into a 63-bit seed."""
    sequence = np.random.SeedSequence(values)
    (state,) = sequence.generate_state(1, np.uint64)
    return int(state >> 1)
