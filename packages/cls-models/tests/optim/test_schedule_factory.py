"""Schedules of PyTorch and of this package, built by name: arguments, interval, and messages."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

import cls_models
from cls_models.optim.schedule_factory import build_schedule, check_schedule

STEPS = 40


def halve(step: int) -> float:
    return 0.5**step


def constant(step: int) -> float:
    return 0.9


def type_of(optimizer: Optimizer) -> type:
    return type(optimizer)


CLASSES: dict[str, tuple[dict[str, Any], str]] = {
    "ConstantLR": ({"factor": 0.5}, "epoch"),
    "CosineAnnealingLR": ({"T_max": 5}, "epoch"),
    "CosineAnnealingWarmRestarts": ({"T_0": 2}, "epoch"),
    "CyclicLR": ({"base_lr": 0.01, "max_lr": 0.1}, "step"),
    "ExponentialLR": ({"gamma": 0.9}, "epoch"),
    "LambdaLR": ({"lr_lambda": halve}, "epoch"),
    "LinearLR": ({}, "epoch"),
    "MultiStepLR": ({"milestones": [2, 4]}, "epoch"),
    "MultiplicativeLR": ({"lr_lambda": constant}, "epoch"),
    "OneCycleLR": ({"max_lr": 0.1}, "step"),
    "PolynomialLR": ({}, "epoch"),
    "StepLR": ({"step_size": 2}, "epoch"),
}
"""Arguments of PyTorch's classes, and when they are updated."""

REFUSED = {
    "ReduceLROnPlateau": "use scheduler=plateau",
    "SequentialLR": "needs schedules that are built already",
    "ChainedScheduler": "needs schedules that are built already",
    "LRScheduler": "is a base class",
}


@pytest.fixture
def optimizer() -> Optimizer:
    return SGD(nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9)


def test_every_class_of_pytorch_is_listed() -> None:
    assert set(lr_scheduler.__all__) == CLASSES.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_class_of_pytorch_is_built_with_its_own_arguments(name: str, optimizer: Optimizer) -> None:
    arguments, interval = CLASSES[name]
    factory = functools.partial(getattr(lr_scheduler, name), **arguments)
    schedule, built_interval = build_schedule(factory, optimizer, STEPS)
    assert built_interval == interval
    check_schedule(schedule, optimizer, STEPS if interval == "step" else 5)


@pytest.mark.parametrize("name", REFUSED)
def test_class_that_cannot_be_set_in_yaml_is_refused(name: str, optimizer: Optimizer) -> None:
    factory = functools.partial(getattr(lr_scheduler, name))
    with pytest.raises(ValueError, match=REFUSED[name]):
        build_schedule(factory, optimizer, STEPS)


@pytest.mark.parametrize(
    "name", ["warmup_cosine", "warmup_linear", "warmup_constant", "one_cycle", "plateau"]
)
def test_own_schedule_is_updated_after_every_step(name: str, optimizer: Optimizer) -> None:
    factory = functools.partial(getattr(cls_models, name))
    assert build_schedule(factory, optimizer, STEPS)[1] == "step"


@pytest.mark.parametrize(
    "arguments", [{"total_steps": 100}, {"epochs": 10, "steps_per_epoch": 10}], ids=str
)
def test_length_that_is_set_is_not_overwritten(
    arguments: dict[str, int], optimizer: Optimizer
) -> None:
    factory = functools.partial(lr_scheduler.OneCycleLR, max_lr=0.1, **arguments)
    schedule, interval = build_schedule(factory, optimizer, STEPS)
    assert interval == "step"
    assert isinstance(schedule, lr_scheduler.OneCycleLR)
    assert schedule.total_steps == 100


def test_function_without_total_steps_is_updated_after_every_epoch(optimizer: Optimizer) -> None:
    def own(optimizer: Optimizer, *, factor: float) -> LRScheduler:
        return lr_scheduler.ConstantLR(optimizer, factor)

    assert build_schedule(functools.partial(own, factor=0.5), optimizer, STEPS)[1] == "epoch"


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (functools.partial(lr_scheduler.StepLR, gamma=0.5), "step_size"),
        (functools.partial(lr_scheduler.CosineAnnealingLR), "T_max"),
        (functools.partial(lr_scheduler.OneCycleLR, max_lr=0.1, pct_start=3.0), "pct_start"),
        (functools.partial(cls_models.warmup_cosine, warmup=2), "warmup is a fraction"),
        (functools.partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=5), "total_steps is 5"),
        (
            functools.partial(lr_scheduler.ExponentialLR, gamma=1e300),
            "the learning rate becomes inf",
        ),
        (
            functools.partial(lr_scheduler.ExponentialLR, gamma=-1.0),
            "the learning rate becomes -0.1",
        ),
        (functools.partial(lr_scheduler.ExponentialLR, gamma="big"), "multiply sequence"),
        (type_of, "expected a learning rate schedule, got type"),
    ],
)
def test_wrong_argument_is_named(
    factory: Callable[..., Any], expected: str, optimizer: Optimizer
) -> None:
    def build_and_check() -> None:
        schedule, _ = build_schedule(factory, optimizer, STEPS)
        check_schedule(schedule, optimizer, STEPS)

    with pytest.raises((TypeError, ValueError), match=expected):
        build_and_check()


def test_check_leaves_the_weights_unchanged(optimizer: Optimizer) -> None:
    before = [weight.clone() for group in optimizer.param_groups for weight in group["params"]]
    schedule, _ = build_schedule(functools.partial(lr_scheduler.LinearLR), optimizer, STEPS)
    check_schedule(schedule, optimizer, STEPS)
    after = [weight for group in optimizer.param_groups for weight in group["params"]]
    assert all(map(torch.equal, before, after))


def test_signature_of_a_bound_class_still_shows_total_steps() -> None:
    factory = functools.partial(lr_scheduler.OneCycleLR, max_lr=0.1)
    assert "total_steps" in inspect.signature(factory).parameters
