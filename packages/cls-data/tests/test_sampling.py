import torch
from hypothesis import given
from hypothesis import strategies as st

from cls_data import EpochSampler, SequentialSampler


@given(
    length=st.integers(1, 200),
    batch_size=st.integers(1, 40),
    world_size=st.integers(1, 4),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 1000),
)
def test_an_epoch_shows_no_row_twice_whatever_the_ranks(
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


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    first, second = EpochSampler(50, 8, seed=3), EpochSampler(50, 8, seed=3)
    list(first)  # another history
    first.set_epoch(4)
    second.set_epoch(4)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.index, other.index)
        assert one.seed == other.seed


def test_order_and_augmentation_draw_from_different_streams() -> None:
    sampler = EpochSampler(8, 8, seed=5)
    plan = next(iter(sampler))
    assert plan.seed is not None
    assert not torch.equal(plan.index, torch.randperm(8, generator=torch.Generator().manual_seed(plan.seed)))


def test_epochs_and_batches_differ_in_order_and_in_their_augmentation_seeds() -> None:
    sampler = EpochSampler(50, 8, seed=3)
    plans = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        plans += list(sampler)
    assert len({plan.seed for plan in plans}) == len(plans)
    assert len({tuple(plan.index.tolist()) for plan in plans}) == len(plans)


def test_only_a_full_batch_is_kept_unless_it_is_the_only_one() -> None:
    assert [len(plan.index) for plan in EpochSampler(17, 8, seed=0)] == [8, 8]
    assert [len(plan.index) for plan in EpochSampler(5, 8, seed=0)] == [5]


def test_weighted_draws_bring_a_rare_row_as_often_as_it_weighs() -> None:
    weights = torch.tensor([1.0] * 99 + [99.0])
    rows = torch.cat([plan.index for plan in EpochSampler(100, 10, seed=0, weights=weights)])
    assert 0.35 < (rows == 99).float().mean() < 0.65


@given(length=st.integers(1, 100), batch_size=st.integers(1, 20), world_size=st.integers(1, 4))
def test_evaluation_sees_every_row_exactly_once_and_augments_none(
    length: int, batch_size: int, world_size: int
) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        sampler = SequentialSampler(length, batch_size, rank=rank, world_size=world_size)
        plans = list(sampler)
        assert len(plans) == len(sampler)
        assert all(plan.seed is None for plan in plans)
        seen += [row for plan in plans for row in plan.index.tolist()]
    assert sorted(seen) == list(range(length))
