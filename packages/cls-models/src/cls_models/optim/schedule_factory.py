"""Build a learning rate schedule from a factory: one of ours, or a class of PyTorch."""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CyclicLR,
    LRScheduler,
    ReduceLROnPlateau,
    SequentialLR,
)

from cls_models.optim.schedules import Plateau

ScheduleInterval = Literal["step", "epoch"]
"""When a schedule is updated: after every optimizer step, or after every epoch."""

_MAX_CHECKED_UPDATES = 1000


def build_schedule(
    factory: Callable[..., Any], optimizer: Optimizer, total_steps: int
) -> tuple[LRScheduler, ScheduleInterval]:
    """Build a schedule, and decide when it is updated.

    A factory with a parameter `total_steps` gets the number by that name, unless it is bound
    already, and its schedule is updated after every step: all schedules of this package, and
    `OneCycleLR`. Any other factory is called with the optimizer and its own bound arguments, and
    is updated after every epoch, as PyTorch's documentation describes; `CyclicLR` after every step.

    Args:
        factory: Called with the optimizer; often a `functools.partial` that binds its arguments.
        optimizer: Its learning rates are the initial ones, or the peak.
        total_steps: Optimizer steps of the whole training.

    Raises:
        TypeError, ValueError: The factory refuses its arguments, returns something else than a
            schedule, or its class needs a metric or other schedules.
    """
    arguments: dict[str, Any] = {}
    takes_steps = "total_steps" in inspect.signature(factory).parameters
    if takes_steps and not _has_length(factory):
        arguments["total_steps"] = total_steps

    _check_class(factory)
    schedule = factory(optimizer, **arguments)
    if not isinstance(schedule, LRScheduler):
        raise TypeError(f"expected a learning rate schedule, got {type(schedule).__name__}")
    if takes_steps or isinstance(schedule, CyclicLR):
        return schedule, "step"
    return schedule, "epoch"


def check_schedule(schedule: LRScheduler, optimizer: Optimizer, updates: int) -> None:
    """Check a schedule by updating it, which changes it and the optimizer's learning rates.

    The optimizer must not have gradients, so that its steps change no weights.

    Args:
        schedule: A schedule that does not depend on a metric.
        optimizer: Its optimizer.
        updates: Updates during the whole training; the first 1,000 are tried.

    Raises:
        ValueError: A learning rate is negative or not finite, or the schedule is shorter than the
            training.
    """
    length = getattr(schedule, "total_steps", None)
    if isinstance(length, int) and length < updates:
        raise ValueError(f"total_steps is {length}, but the training has {updates} steps")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as those about the order of calls
        for update in range(min(updates, _MAX_CHECKED_UPDATES)):
            optimizer.step()
            _check_rates(optimizer, update)
            if update + 1 < updates:
                schedule.step()


def _check_rates(optimizer: Optimizer, update: int) -> None:
    for group in optimizer.param_groups:
        rate = float(group["lr"])
        if not math.isfinite(rate) or rate < 0:
            raise ValueError(f"the learning rate becomes {rate} after {update} updates")


def _bound_arguments(factory: Callable[..., Any]) -> Mapping[str, Any]:
    keywords: Mapping[str, Any] = getattr(factory, "keywords", {})
    return keywords


def _has_length(factory: Callable[..., Any]) -> bool:
    bound = _bound_arguments(factory)
    has_steps = bound.get("total_steps") is not None
    has_epochs = bound.get("epochs") is not None and bound.get("steps_per_epoch") is not None
    return has_steps or has_epochs


def _check_class(factory: Callable[..., Any]) -> None:
    target = getattr(factory, "func", factory)
    if not inspect.isclass(target):
        return
    if issubclass(target, ReduceLROnPlateau) and not issubclass(target, Plateau):
        raise ValueError(
            f"{target.__name__} does not know its metric; use scheduler=plateau "
            "(cls_models.plateau), which has the argument monitor"
        )
    if issubclass(target, SequentialLR | ChainedScheduler):
        raise ValueError(
            f"{target.__name__} needs schedules that are built already; write a function of your "
            "own that takes the optimizer and total_steps and returns one"
        )
    if target is LRScheduler:
        raise ValueError("LRScheduler is a base class; choose one of its subclasses")
