"""Which rows make up each batch, as a pure function of (seed, epoch, batch number, rank).

Nothing is remembered between epochs, so a resumed run sees the very batches of an uninterrupted one.

Both samplers give each rank its own share. They are `DistributedSampler`s by name alone: Lightning would wrap any
other kind in one of its own, which shares out the shares once more and drops rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

_ORDER, _AUGMENTATION = 1, 2
"""Streams of draws; without a tag of its own, one would be the other where later parts are zero."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The rows of one batch.

    Attributes:
        index: int64 [B], rows of the split.
        seed: what the batch's augmentation draws from; None where nothing is to be augmented.
    """

    index: Tensor
    seed: int | None


class EpochSampler(DistributedSampler[BatchPlan]):
    """Training batches of one rank.

    Without weights an epoch is a permutation of the rows; with weights it is as many draws with replacement.
    A last batch that is not full is dropped (batch norm cannot take a batch of one), unless it is the only one;
    since every epoch has another order, no row is dropped for good. All ranks get equally many batches; a rank
    that finds fewer rows than ranks may get an empty one.

    Args:
        length: rows of the split.
        batch_size: rows per batch and rank.
        seed: of the run.
        weights: float [length], the relative frequency of each row; None to visit each once.
        rank: of this process.
        world_size: number of processes; together they take `batch_size * world_size` rows a step.
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
        # Not the parent's constructor: it wants a data set and keeps an order of its own.
        self._length = length
        self._batch_size = batch_size
        self._seed = seed
        self._weights = weights
        self._rank = rank
        self._world_size = world_size
        self.epoch = 0
        self.start = 0
        """Number of the first batch that comes, above 0 where a run goes on in the middle of an epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, self._length // (self._batch_size * self._world_size))

    def __iter__(self) -> Iterator[BatchPlan]:
        order = self._order()
        for number in range(self.start, len(self)):
            step = order[number * self._batch_size * self._world_size :][
                : self._batch_size * self._world_size
            ]
            yield BatchPlan(
                step[self._rank :: self._world_size],
                _mix(_AUGMENTATION, self._seed, self.epoch, number, self._rank),
            )

    def _order(self) -> Tensor:
        generator = torch.Generator().manual_seed(_mix(_ORDER, self._seed, self.epoch))
        if self._weights is None:
            return torch.randperm(self._length, generator=generator)
        return torch.multinomial(self._weights, self._length, replacement=True, generator=generator)


class SequentialSampler(DistributedSampler[BatchPlan]):
    """Every row once, in order; each rank takes every `world_size`-th, so that none is seen twice."""

    def __init__(self, length: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        # Not the parent's constructor: it would repeat rows to even out the ranks.
        self._rows = torch.arange(length)[rank::world_size]
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __iter__(self) -> Iterator[BatchPlan]:
        for start in range(0, len(self._rows), self._batch_size):
            yield BatchPlan(self._rows[start : start + self._batch_size], None)


def _mix(*parts: int) -> int:
    """Hash some integers into a seed of 63 bits."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
