from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DistributedSampler

from cls_data import BatchPlan, EpochSampler, EvaluationSampler
from cls_data.loading.samplers import _ORDER_STREAM, _derive_seed


def epoch_of(sampler: EpochSampler, epoch: int) -> list[BatchPlan]:
    sampler.set_epoch(epoch)
    return list(sampler)


def some_weights(length: int, seed: int) -> Tensor:
    return torch.rand(length, generator=torch.Generator().manual_seed(seed)) + 0.01


@given(
    length=st.integers(1, 200),
    batch_size=st.integers(1, 40),
    world_size=st.integers(1, 4),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 1000),
)
def test_an_epoch_has_no_row_twice_for_any_number_of_ranks(
    length: int, batch_size: int, world_size: int, seed: int, epoch: int
) -> None:
    seen: list[int] = []
    lengths = set()
    for rank in range(world_size):
        sampler = EpochSampler(length, batch_size, seed, rank=rank, world_size=world_size)
        sampler.set_epoch(epoch)
        plans = list(sampler)
        lengths.add(len(plans))
        assert len(plans) == len(sampler)
        seen += [row for plan in plans for row in plan.index.tolist()]
    assert len(lengths) == 1
    assert len(seen) == len(set(seen))
    assert set(seen) <= set(range(length))
    assert len(seen) >= length - batch_size * world_size


@given(
    length=st.integers(4, 200),
    batch_size=st.integers(1, 40),
    world_size=st.integers(1, 4),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 1000),
    weighted=st.booleans(),
)
def test_ranks_divide_the_batches_of_a_single_process_with_the_same_step_size(
    length: int, batch_size: int, world_size: int, seed: int, epoch: int, weighted: bool
) -> None:
    weights = some_weights(length, seed) if weighted else None
    alone = epoch_of(EpochSampler(length, batch_size * world_size, seed, weights=weights), epoch)
    ranks = [
        epoch_of(
            EpochSampler(
                length, batch_size, seed, weights=weights, rank=rank, world_size=world_size
            ),
            epoch,
        )
        for rank in range(world_size)
    ]
    for whole, *shares in zip(alone, *ranks, strict=True):
        together = torch.empty_like(whole.index)
        for rank, share in enumerate(shares):
            together[rank::world_size] = share.index
        assert torch.equal(together, whole.index)
        seeds = {share.seed for share in shares}
        assert len(seeds) == world_size, "each rank has its own augmentation seed"


@pytest.mark.parametrize("weights", [None, some_weights(50, 0)])
@pytest.mark.parametrize("rank", [0, 1])
def test_batches_depend_only_on_seed_epoch_and_rank(weights: Tensor | None, rank: int) -> None:
    """A resumed run with a new sampler gets the batches of an uninterrupted run."""

    def sampler(seed: int = 3) -> EpochSampler:
        return EpochSampler(50, 8, seed, weights=weights, rank=rank, world_size=2)

    uninterrupted = sampler()
    for epoch in range(4):
        epoch_of(uninterrupted, epoch)
    torch.manual_seed(torch.seed())  # nor on the global random state
    for one, other in zip(epoch_of(uninterrupted, 4), epoch_of(sampler(), 4), strict=True):
        assert torch.equal(one.index, other.index)
        assert one.seed == other.seed
    others = epoch_of(sampler(seed=4), 4)
    assert not any(
        torch.equal(one.index, other.index)
        for one, other in zip(uninterrupted, others, strict=True)
    )


@pytest.mark.parametrize("make", [lambda: EpochSampler(9, 2, 0), lambda: EvaluationSampler(9, 2)])
def test_samplers_are_distributed_samplers(make: Callable[[], object]) -> None:
    """Otherwise Lightning would wrap them and divide the shares again."""
    assert isinstance(make(), DistributedSampler)


def test_order_and_augmentation_use_different_random_streams() -> None:
    sampler = EpochSampler(8, 8, seed=5)
    plan = next(iter(sampler))
    assert plan.seed is not None
    assert not torch.equal(
        plan.index, torch.randperm(8, generator=torch.Generator().manual_seed(plan.seed))
    )


def test_epochs_and_batches_have_different_rows_and_augmentation_seeds() -> None:
    sampler = EpochSampler(50, 8, seed=3)
    plans = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        plans += list(sampler)
    assert len({plan.seed for plan in plans}) == len(plans)
    assert len({tuple(plan.index.tolist()) for plan in plans}) == len(plans)


def test_an_incomplete_batch_is_dropped_unless_it_is_the_only_one() -> None:
    assert [len(plan.index) for plan in EpochSampler(17, 8, seed=0)] == [8, 8]
    assert [len(plan.index) for plan in EpochSampler(5, 8, seed=0)] == [5]


def test_a_heavy_row_is_sampled_by_its_weight() -> None:
    weights = torch.tensor([1.0] * 99 + [99.0])
    rows = torch.cat([plan.index for plan in EpochSampler(100, 10, seed=0, weights=weights)])
    assert 0.35 < (rows == 99).float().mean() < 0.65


def test_sampling_frequencies_match_the_weights_over_epochs_and_ranks() -> None:
    weights = torch.tensor([0.0, 1, 2, 3, 4])
    samplers = [
        EpochSampler(5, 1, 0, weights=weights, rank=rank, world_size=2) for rank in range(2)
    ]
    plans = [
        plan for epoch in range(2000) for sampler in samplers for plan in epoch_of(sampler, epoch)
    ]
    frequencies = torch.bincount(torch.cat([plan.index for plan in plans]), minlength=5) / (
        4 * 2000
    )
    assert torch.allclose(frequencies, weights / 10, atol=0.02)
    assert frequencies[0] == 0


@given(length=st.integers(1, 3000), seed=st.integers(0, 2**32))
def test_weighted_rows_are_those_of_multinomial_in_float64(length: int, seed: int) -> None:
    weights = some_weights(length, seed)
    weights[torch.rand(length, generator=torch.Generator().manual_seed(seed)) < 0.2] = 0
    weights[seed % length] = 1
    (plan,) = EpochSampler(length, length, seed, weights=weights)
    order_seed = _derive_seed(_ORDER_STREAM, seed, 0)
    generator = torch.Generator().manual_seed(order_seed)
    expected = torch.multinomial(weights.double(), length, replacement=True, generator=generator)
    assert torch.equal(plan.index, expected)


def test_light_rows_after_many_heavy_ones_are_sampled() -> None:
    """A sum in float32 reaches 2^25, where adding a weight of 1 changes nothing."""
    heavy, light = 2**19, 2**19
    weights = torch.cat([torch.full((heavy,), 64.0), torch.ones(light)])
    (plan,) = EpochSampler(len(weights), len(weights), seed=0, weights=weights)
    num_light = int((plan.index >= heavy).sum())
    expected = len(weights) / 65
    assert abs(num_light - expected) < 0.1 * expected


@given(length=st.integers(1, 100), batch_size=st.integers(1, 20), world_size=st.integers(1, 4))
def test_evaluation_yields_every_row_once_in_equally_many_batches_on_all_ranks(
    length: int, batch_size: int, world_size: int
) -> None:
    length = max(length, world_size)
    shares = []
    for rank in range(world_size):
        sampler = EvaluationSampler(length, batch_size, rank=rank, world_size=world_size)
        plans = list(sampler)
        assert len(plans) == len(sampler)
        assert all(plan.seed is None and len(plan.index) > 0 for plan in plans)
        shares.append(plans)

    seen: list[int] = []
    for batch in zip(*shares, strict=True):
        rows = torch.cat([plan.index for plan in batch]).sort().values.tolist()
        assert len(rows) < max(batch_size, world_size) + world_size
        seen += rows
    assert seen == list(range(length))


@given(
    batches=st.integers(1, 5),
    per_rank=st.integers(1, 5),
    world_size=st.integers(1, 4),
    limit=st.integers(1, 5),
)
def test_the_first_evaluation_batches_have_the_same_rows_on_any_number_of_ranks(
    batches: int, per_rank: int, world_size: int, limit: int
) -> None:
    batch_size = per_rank * world_size
    length = batches * batch_size
    alone = [plan.index for plan in EvaluationSampler(length, batch_size)][:limit]
    shared = []
    for rank in range(world_size):
        sampler = EvaluationSampler(length, batch_size, rank=rank, world_size=world_size)
        shared += [plan.index for plan in sampler][:limit]
    assert torch.equal(torch.cat(shared).sort().values, torch.cat(alone))
