import functools
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cls_models.optim.muon import Muon
from cls_models.optim.schedules import (
    Plateau,
    one_cycle,
    plateau,
    warmup_constant,
    warmup_cosine,
    warmup_linear,
)

PEAK = 2.0
Factory = Callable[..., LRScheduler]


def sgd() -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=PEAK, momentum=0.9)


def rates(factory: Factory, total: int, **settings: Any) -> list[float]:
    optimizer = sgd()
    schedule = factory(optimizer, total, **settings)
    result = []
    for _ in range(total):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return result


@given(total=st.integers(1, 300), warmup=st.floats(0, 0.9), final=st.floats(0, 0.5))
@settings(deadline=None, max_examples=50)
@pytest.mark.parametrize("factory", [warmup_cosine, warmup_linear])
def test_warmup_schedules_rise_to_the_peak_and_decay_to_the_final_rate(
    factory: Factory, total: int, warmup: float, final: float
) -> None:
    result = rates(factory, total, warmup=warmup, final=final)
    rise = max(1, round(warmup * total))
    assert result[0] == pytest.approx(PEAK / rise)
    assert max(result) == result[min(rise, total) - 1] == pytest.approx(PEAK)
    assert result[:rise] == sorted(result[:rise])
    assert result[rise - 1 :] == sorted(result[rise - 1 :], reverse=True)
    if total > rise:
        share = (total - 1 - rise) / (total - rise)
        fallen = (1 - math.cos(math.pi * share)) / 2 if factory is warmup_cosine else share
        assert result[-1] == pytest.approx(PEAK * (1 - (1 - final) * fallen), abs=1e-9)


@given(total=st.integers(1, 300), warmup=st.floats(0, 0.9))
@settings(deadline=None, max_examples=50)
def test_warmup_constant_keeps_the_peak_after_the_warmup(total: int, warmup: float) -> None:
    result = rates(warmup_constant, total, warmup=warmup)
    rise = max(1, round(warmup * total))
    assert result == pytest.approx([PEAK * min(1.0, (step + 1) / rise) for step in range(total)])


def test_warmup_cosine_follows_the_formula() -> None:
    result = rates(warmup_cosine, 100, warmup=0.1, final=0.0)
    assert result[0] == pytest.approx(0.2)
    assert result[9] == pytest.approx(2.0)
    assert result[55] == pytest.approx(2.0 * (1 + math.cos(math.pi * 45 / 90)) / 2)


@given(
    total=st.integers(3, 300),
    warmup=st.floats(0.01, 0.99),
    initial=st.floats(0.01, 1),
    final=st.floats(1e-6, 0.5),
    shape=st.sampled_from(["cosine", "linear"]),
)
@settings(deadline=None, max_examples=100)
def test_one_cycle_rises_once_and_falls_once(
    total: int, warmup: float, initial: float, final: float, shape: str
) -> None:
    result = rates(one_cycle, total, warmup=warmup, initial=initial, final=final, shape=shape)
    peak = min(max(2, round(warmup * total)), total - 1) - 1
    assert result[0] == pytest.approx(PEAK * initial)
    assert result[peak] == pytest.approx(PEAK)
    assert result[-1] == pytest.approx(PEAK * final)
    middle = result[(peak + total - 1) // 2]
    share = ((peak + total - 1) // 2 - peak) / (total - 1 - peak)
    fallen = (1 - math.cos(math.pi * share)) / 2 if shape == "cosine" else share
    assert middle == pytest.approx(PEAK * (1 - (1 - final) * fallen))
    assert all(a <= b + 1e-9 for a, b in pairwise(result[: peak + 1]))
    assert all(a >= b - 1e-9 for a, b in pairwise(result[peak:]))


def matrices_and_more() -> list[dict[str, Any]]:
    return [
        {"params": [nn.Parameter(torch.zeros(2, 2))], "matrices": True},
        {"params": [nn.Parameter(torch.zeros(2))], "matrices": False},
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.optim.AdamW(matrices_and_more(), lr=PEAK),
        lambda: torch.optim.SGD(matrices_and_more(), lr=PEAK, momentum=0.9),
        lambda: Muon(matrices_and_more(), lr=PEAK),
    ],
)
def test_one_cycle_moves_momentum_opposite_to_the_rate(make: Callable[[], Optimizer]) -> None:
    optimizer = make()
    schedule = one_cycle(optimizer, 10, warmup=0.5, momentum=[0.8, 0.9])

    def momentum() -> float:
        group = optimizer.param_groups[-1]
        return float(group["betas"][0] if "betas" in group else group["momentum"])

    result = [momentum()]
    for _ in range(9):
        optimizer.step()
        schedule.step()
        result.append(momentum())
    assert (result[0], min(result), result[4]) == pytest.approx((0.9, 0.8, 0.8))
    assert result[-1] == pytest.approx(0.9)


def test_one_cycle_keeps_momentum_when_it_is_none() -> None:
    optimizer = sgd()
    one_cycle(optimizer, 10, momentum=None)
    assert optimizer.param_groups[0]["momentum"] == 0.9
    one_cycle(torch.optim.Adagrad([nn.Parameter(torch.zeros(1))]), 10, momentum=None)


@pytest.mark.parametrize("factory", [warmup_cosine, warmup_linear, warmup_constant, one_cycle])
@given(stop=st.integers(1, 19))
@settings(deadline=None, max_examples=10)
def test_resumed_schedule_gives_the_same_rates(factory: Factory, stop: int) -> None:
    expected = rates(factory, 20)
    first = sgd()
    schedule = factory(first, 20)
    for _ in range(stop):
        first.step()
        schedule.step()
    second = sgd()
    resumed = factory(second, 20)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    result = []
    for _ in range(20 - stop):
        result.append(second.param_groups[0]["lr"])
        second.step()
        resumed.step()
    assert result == expected[stop:]


def test_one_cycle_rejects_the_state_of_another_length() -> None:
    saved = one_cycle(sgd(), 20).state_dict()
    with pytest.raises(
        ValueError, match="started a one_cycle schedule of 20 steps and cannot resume with 30"
    ):
        one_cycle(sgd(), 30).load_state_dict(saved)


@given(
    scores=st.lists(st.floats(0, 1), max_size=30),
    patience=st.integers(0, 3),
    stop=st.integers(0, 30),
)
@settings(deadline=None, max_examples=50)
def test_plateau_lowers_rates_when_the_metric_does_not_improve(
    scores: list[float], patience: int, stop: int
) -> None:
    def make() -> tuple[Optimizer, Plateau]:
        groups = [
            {"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (PEAK, PEAK / 10)
        ]
        optimizer = torch.optim.SGD(groups)
        return optimizer, plateau(
            optimizer, 100, patience=patience, factor=0.5, threshold=0.01, final=0.1
        )

    optimizer, schedule = make()
    rate, best, waited = 1.0, -math.inf, 0
    for number, score in enumerate(scores):
        if number == stop:
            saved = optimizer.state_dict(), schedule.state_dict()
            optimizer, schedule = make()
            optimizer.load_state_dict(saved[0])
            schedule.load_state_dict(saved[1])
        schedule.step(score)
        best, waited = (score, 0) if score > best + 0.01 else (best, waited + 1)
        if waited > patience:
            rate, waited = max(rate / 2, 0.1), 0
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
            [PEAK * rate, PEAK * rate / 10]
        )


class PlateauModule(LightningModule):
    """Step a plateau schedule at the end of validation, like ClassificationModule."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.rates: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        loss: Tensor = self.layer(batch).sum()
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("score", 0.5)

    def on_validation_epoch_end(self) -> None:
        for config in self.trainer.lr_scheduler_configs:
            config.scheduler.step(0.5)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        schedule = plateau(optimizer, 0, monitor="score", patience=1)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "reduce_on_plateau": False},
        }

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Do not step the plateau schedule."""


class SaveEachEpoch(Callback):
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / f"{trainer.current_epoch}.ckpt")


def test_plateau_resumes_from_the_checkpoint_of_any_epoch(tmp_path: Path) -> None:
    def fit(**arguments: Any) -> list[float]:
        module = PlateauModule()
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=6,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
            default_root_dir=tmp_path,
            callbacks=[SaveEachEpoch()],
        )
        loader = torch.utils.data.DataLoader(torch.zeros(2, 1), batch_size=2)
        trainer.fit(module, loader, loader, **arguments)
        return module.rates

    expected = fit()
    assert expected == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]
    for epoch in range(5):
        assert fit(ckpt_path=tmp_path / f"{epoch}.ckpt", weights_only=True) == expected[epoch + 1 :]


@pytest.mark.parametrize(
    ("factory", "total", "wrong", "message"),
    [
        (warmup_cosine, 10, {"warmup": -0.1}, "fraction of the training steps"),
        (warmup_linear, 10, {"warmup": 1.0}, "For a warmup of n of N steps, set n / N"),
        (
            warmup_constant,
            10,
            {"warmup": 5},
            "fraction of the training steps, at least 0 and below 1; got 5",
        ),
        (warmup_cosine, 10, {"final": 2.0}, "final is a fraction of the peak"),
        (warmup_linear, 10, {"final": -1.0}, "final is a fraction of the peak"),
        (warmup_cosine, 0, {}, "at least 1 optimizer step, got 0"),
        (one_cycle, 2, {}, "at least 3 optimizer steps, got 2"),
        (one_cycle, 10, {"warmup": 0}, "above 0 and below 1; got 0"),
        (
            one_cycle,
            10,
            {"final": 0},
            "final is a fraction of the peak learning rate and must be above 0",
        ),
        (one_cycle, 10, {"initial": 2}, "initial is a fraction of the peak"),
        (one_cycle, 10, {"shape": "cos"}, "shape must be 'cosine' or 'linear'"),
        (one_cycle, 10, {"momentum": [0.9, 0.8]}, r"momentum must be \[lowest, highest\]"),
        (plateau, 10, {"mode": "maximum"}, "mode must be 'max' or 'min', got 'maximum'"),
        (plateau, 10, {"factor": 1.0}, "factor must be above 0 and below 1"),
        (plateau, 10, {"patience": -1}, "patience and threshold must be 0 or more"),
        (plateau, 10, {"final": -1}, "final is a fraction of the peak"),
    ],
)
def test_schedules_reject_settings_out_of_range(
    factory: Factory, total: int, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        factory(sgd(), total, **wrong)


def test_one_cycle_rejects_an_optimizer_without_momentum() -> None:
    make = functools.partial(torch.optim.Adagrad, [nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match="Adagrad has no momentum to cycle; set momentum: null"):
        one_cycle(make(), 10)
