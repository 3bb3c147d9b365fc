import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cls_models.training_metrics import TrainingMetrics

EPOCH = ([1.0, 2.0, 6.0, 3.0], [0, 1, 1, 0])
"""Losses of four batches, and predictions for labels of class 1."""


def train(metrics: TrainingMetrics, first: int, last: int, ranks: int) -> None:
    """Add the updates of all ranks, which have equal batches, to the metrics of the first one."""
    for loss, predicted in list(zip(*EPOCH, strict=True))[first:last]:
        for _ in range(ranks):
            logits = torch.eye(2)[[predicted]]
            metrics.update(torch.tensor(loss), logits, torch.tensor([1]))


@given(
    counts=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    stops=st.lists(st.integers(0, 3), min_size=3, max_size=3),
)
def test_an_epoch_has_one_mean_loss_whatever_numbers_of_ranks_train_it(
    counts: list[int], stops: list[int]
) -> None:
    bounds = [0, *sorted(stops[: len(counts) - 1]), 4]
    metrics = TrainingMetrics()
    train(metrics, 0, bounds[1], counts[0])
    for before, now, first, last in zip(counts, counts[1:], bounds[1:], bounds[2:], strict=False):
        resumed = TrainingMetrics()
        resumed.restore_state(metrics.get_state(before), rank=0, world_size=now)
        metrics = resumed
        train(metrics, first, last, now)
    assert float(metrics.compute()["train_loss"]) == pytest.approx(3.0)


def test_only_the_first_rank_continues_saved_metrics() -> None:
    metrics = TrainingMetrics()
    train(metrics, 0, 2, ranks=1)
    state = metrics.get_state(world_size=1)
    ranks = [TrainingMetrics() for _ in range(2)]
    for rank, resumed in enumerate(ranks):
        resumed.restore_state(state, rank, world_size=2)
    assert [resumed.sum_losses() for resumed in ranks] == [6.0, 0.0]


def test_a_checkpoint_of_version_0_1_has_the_losses_of_one_device() -> None:
    metrics = TrainingMetrics()
    train(metrics, 0, 2, ranks=1)
    state = metrics.get_state(world_size=1)
    del state["world_size"]
    resumed = TrainingMetrics()
    resumed.restore_state(state, rank=0, world_size=1)
    train(resumed, 2, 4, ranks=1)
    assert float(resumed.compute()["train_loss"]) == 3.0
    assert float(resumed.compute()["train_top1"]) == 0.5
