"""How the learning rate moves: schedules that are stepped after every optimizer step, and one that waits and sees."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, *, warmup: float = 0.1, final: float = 0.01
) -> LambdaLR:
    """Raise the learning rate linearly, then lower it along half a cosine (Loshchilov and Hutter, arXiv:1608.03983).

    Args:
        optimizer: its own learning rates are the peak.
        total_steps: optimizer steps of the whole training.
        warmup: share of the steps that the rise takes, 0 to below 1.
        final: share of the peak that is left at the end.

    Raises:
        ValueError: a setting out of its range.
    """
    _check_share("final", final)
    return _warmed_up(
        optimizer,
        total_steps,
        warmup,
        lambda done: final + (1 - final) * (1 + math.cos(math.pi * done)) / 2,
    )


def warmup_linear(
    optimizer: Optimizer, total_steps: int, *, warmup: float = 0.1, final: float = 0.0
) -> LambdaLR:
    """Raise the learning rate linearly, then lower it linearly.

    Args:
        optimizer: its own learning rates are the peak.
        total_steps: optimizer steps of the whole training.
        warmup: share of the steps that the rise takes, 0 to below 1.
        final: share of the peak that is left at the end.

    Raises:
        ValueError: a setting out of its range.
    """
    _check_share("final", final)
    return _warmed_up(optimizer, total_steps, warmup, lambda done: 1 - (1 - final) * done)


def warmup_constant(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.1) -> LambdaLR:
    """Raise the learning rate linearly, then leave it.

    Args:
        optimizer: its own learning rates are the peak.
        total_steps: optimizer steps of the whole training.
        warmup: share of the steps that the rise takes, 0 to below 1.

    Raises:
        ValueError: a setting out of its range.
    """
    return _warmed_up(optimizer, total_steps, warmup, lambda done: 1.0)


def one_cycle(
    optimizer: Optimizer,
    total_steps: int,
    *,
    warmup: float = 0.3,
    initial: float = 0.04,
    final: float = 4e-6,
    shape: Literal["cosine", "linear"] = "cosine",
    momentum: Sequence[float] | None = (0.85, 0.95),
) -> OneCycleLR:
    """Raise the learning rate and lower it again, with the momentum the other way (Smith, arXiv:1708.07120).

    Args:
        optimizer: its own learning rates are the peak.
        total_steps: optimizer steps of the whole training, at least 3.
        warmup: share of the steps that the rise takes, above 0 to below 1.
        initial: share of the peak at the first step, above 0 to 1.
        final: share of the peak at the last step, above 0 to 1.
        shape: of rise and fall.
        momentum: [lowest, highest] of an SGD's momentum or an Adam's first beta; None leaves it as it is.

    Raises:
        ValueError: a setting out of its range, or an optimizer without momentum where it is to be cycled.
    """
    if total_steps < 3:
        raise ValueError(
            f"one_cycle needs at least 3 optimizer steps to rise and fall in, got {total_steps}"
        )
    if not 0 < warmup < 1:
        raise ValueError(
            f"warmup is a share of the training steps, above 0 and below 1; got {warmup}"
        )
    for name, share in (("initial", initial), ("final", final)):
        _check_share(name, share)
        if share == 0:
            raise ValueError(
                f"{name} is a share of the peak and must be above 0; torch divides by it"
            )
    if shape not in ("cosine", "linear"):
        raise ValueError(f"shape must be 'cosine' or 'linear', got {shape!r}")
    low, high = _checked_momentum(momentum, optimizer)
    # Whole steps, two at least and one left for the fall: torch divides by the length of each phase less one.
    rise = min(max(2, round(warmup * total_steps)), total_steps - 1)
    return _OneCycle(
        optimizer,
        max_lr=[float(group["lr"]) for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=rise / total_steps,
        anneal_strategy="cos" if shape == "cosine" else "linear",
        cycle_momentum=momentum is not None,
        base_momentum=low,
        max_momentum=high,
        div_factor=1 / initial,
        final_div_factor=initial / final,
    )


class Plateau(ReduceLROnPlateau):
    """A schedule to be stepped with a metric after every validation, rather than after every optimizer step."""

    monitor: str
    """The metric's name, as the module logs it."""


def plateau(
    optimizer: Optimizer,
    total_steps: int,
    *,
    monitor: str = "valid_top1",
    mode: Literal["max", "min"] = "max",
    factor: float = 0.5,
    patience: int = 3,
    threshold: float = 1e-3,
    final: float = 0.001,
) -> Plateau:
    """Lower the learning rate whenever a metric of the validation has stood still.

    Lightning steps such a schedule after the last hook of an epoch, by when the epoch's checkpoint is written: a run
    that resumes from it would have missed one look at the metric. The module has to step it itself, as soon as the
    validation is over.

    Args:
        optimizer: its own learning rates are those of the beginning.
        total_steps: not used; it is what every schedule is given.
        monitor: name of the metric.
        mode: whether it is to be large or small.
        factor: what the rates are multiplied by, above 0 and below 1.
        patience: validations without improvement that are still waited for.
        threshold: how much, absolutely, is an improvement.
        final: share of the first rates below which they are never lowered.

    Raises:
        ValueError: a setting out of its range.
    """
    if mode not in ("max", "min"):
        raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
    if not 0 < factor < 1:
        raise ValueError(f"factor must be above 0 and below 1, got {factor}")
    if patience < 0 or threshold < 0:
        raise ValueError(
            f"patience and threshold must be 0 or more, got {patience} and {threshold}"
        )
    _check_share("final", final)
    floors = [float(group["lr"]) * final for group in optimizer.param_groups]
    schedule = Plateau(
        optimizer, mode, factor, patience, threshold, threshold_mode="abs", min_lr=floors, eps=0
    )
    schedule.monitor = monitor
    return schedule


class _OneCycle(OneCycleLR):
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state, of a cycle of the same length."""
        if state_dict["total_steps"] != self.total_steps:
            raise ValueError(
                f"the run began a one-cycle of {state_dict['total_steps']} steps and cannot go on with one of "
                f"{self.total_steps}; resume with the epochs and the batch size that it began with, or start a new run"
            )
        super().load_state_dict(state_dict)


def _warmed_up(
    optimizer: Optimizer, total_steps: int, warmup: float, after: Callable[[float], float]
) -> LambdaLR:
    """Rise linearly to the peak, then follow `after`, a function of the share (0-1) of the rest that is done."""
    if total_steps < 1:
        raise ValueError(f"a schedule needs at least 1 optimizer step, got {total_steps}")
    if not 0 <= warmup < 1:
        raise ValueError(
            f"warmup is a share of the training steps, 0 to below 1; got {warmup}. "
            "A warm-up of n of N steps is the share n / N, and cannot be as long as the training"
        )
    rise = max(1, round(warmup * total_steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return after(min(1.0, (step - rise) / max(1, total_steps - rise)))

    return LambdaLR(optimizer, factor)


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is a share of the peak learning rate, 0 to 1; got {share}")


def _checked_momentum(
    momentum: Sequence[float] | None, optimizer: Optimizer
) -> tuple[float, float]:
    if momentum is None:
        return 0.0, 0.0
    if len(momentum) != 2 or not 0 <= momentum[0] <= momentum[1] < 1:
        raise ValueError(
            f"momentum must be [lowest, highest] from 0 to below 1, or null, got {momentum}"
        )
    if optimizer.defaults.keys().isdisjoint({"momentum", "betas"}):
        raise ValueError(
            f"{type(optimizer).__name__} has no momentum that could cycle; set momentum: null"
        )
    return momentum[0], momentum[1]
