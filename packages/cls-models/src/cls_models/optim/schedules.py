"""Learning rate schedules."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, *, warmup: float = 0.1, final: float = 0.01
) -> LambdaLR:
    """Return a linear warmup followed by a cosine decay (Loshchilov and Hutter, arXiv:1608.03983).

    Args:
        optimizer: Its learning rates are the peak.
        total_steps: Optimizer steps of the whole training.
        warmup: Fraction of the steps used for warmup, at least 0 and below 1.
        final: Final learning rate as a fraction of the peak.

    Raises:
        ValueError: An argument is out of range.
    """
    _check_fraction("final", final)

    def decay(progress: float) -> float:
        angle = math.pi * progress
        cosine = (1 + math.cos(angle)) / 2
        return final + (1 - final) * cosine

    return _warm_up_then(decay, optimizer, total_steps, warmup)


def warmup_linear(
    optimizer: Optimizer, total_steps: int, *, warmup: float = 0.1, final: float = 0.0
) -> LambdaLR:
    """Return a linear warmup followed by a linear decay; see `warmup_cosine`."""
    _check_fraction("final", final)

    def decay(progress: float) -> float:
        return 1 - (1 - final) * progress

    return _warm_up_then(decay, optimizer, total_steps, warmup)


def warmup_constant(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.1) -> LambdaLR:
    """Return a linear warmup followed by a constant learning rate; see `warmup_cosine`."""

    def decay(progress: float) -> float:
        return 1.0

    return _warm_up_then(decay, optimizer, total_steps, warmup)


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
    """Return a rise and a fall of the learning rate, with momentum in the opposite direction.

    See Smith and Topin, arXiv:1708.07120.

    Args:
        optimizer: Its learning rates are the peak.
        total_steps: Optimizer steps of the whole training, at least 3.
        warmup: Fraction of the steps used for the rise, above 0 and below 1.
        initial: Learning rate of the first step as a fraction of the peak, above 0 and at most 1.
        final: Learning rate of the last step as a fraction of the peak, above 0 and at most 1.
        shape: Curve of the rise and the fall.
        momentum: [lowest, highest] of SGD's momentum or Adam's first beta; None leaves it constant.

    Raises:
        ValueError: An argument is out of range, or the optimizer has no momentum to cycle.
    """
    if total_steps < 3:
        raise ValueError(f"one_cycle needs at least 3 optimizer steps, got {total_steps}")
    if not 0 < warmup < 1:
        raise ValueError(
            f"warmup is a fraction of the training steps, above 0 and below 1; got {warmup}"
        )
    for name, fraction in (("initial", initial), ("final", final)):
        _check_fraction(name, fraction)
        if fraction == 0:
            raise ValueError(
                f"{name} is a fraction of the peak learning rate and must be above 0, "
                "because torch divides by it"
            )
    if shape not in ("cosine", "linear"):
        raise ValueError(f"shape must be 'cosine' or 'linear', got {shape!r}")
    lowest, highest = _check_momentum(momentum, optimizer)
    # At least two whole steps, and one left for the fall: torch divides by each phase's length - 1.
    rise_steps = min(max(2, round(warmup * total_steps)), total_steps - 1)
    return _OneCycle(
        optimizer,
        max_lr=[float(group["lr"]) for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=rise_steps / total_steps,
        anneal_strategy="cos" if shape == "cosine" else "linear",
        cycle_momentum=momentum is not None,
        base_momentum=lowest,
        max_momentum=highest,
        div_factor=1 / initial,
        final_div_factor=initial / final,
    )


class Plateau(ReduceLROnPlateau):
    """A schedule that is stepped with a metric after every validation."""

    monitor: str
    """The metric's name, as logged by the module."""


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
    """Return a schedule that lowers the learning rate when a validation metric stops improving.

    Lightning would step it after the last hook of an epoch, when the epoch's checkpoint is already
    written, so a resumed run would miss one metric value. `ClassificationModule` therefore steps it
    itself, right after validation.

    Args:
        optimizer: Its learning rates are the initial ones.
        total_steps: Not used; every schedule takes it.
        monitor: Name of the metric.
        mode: Whether larger (`max`) or smaller (`min`) is better.
        factor: Multiplier of the learning rates, above 0 and below 1.
        patience: Number of validations without improvement before the rate is lowered.
        threshold: Smallest absolute change that counts as an improvement.
        final: Lower bound of the learning rates as a fraction of the initial ones.

    Raises:
        ValueError: An argument is out of range.
    """
    if mode not in ("max", "min"):
        raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
    if not 0 < factor < 1:
        raise ValueError(f"factor must be above 0 and below 1, got {factor}")
    if patience < 0 or threshold < 0:
        raise ValueError(
            f"patience and threshold must be 0 or more, got {patience} and {threshold}"
        )
    _check_fraction("final", final)

    min_lr = [float(group["lr"]) * final for group in optimizer.param_groups]
    schedule = Plateau(
        optimizer, mode, factor, patience, threshold, threshold_mode="abs", min_lr=min_lr, eps=0
    )
    schedule.monitor = monitor
    return schedule


class _OneCycle(OneCycleLR):
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a cycle of the same length."""
        steps = state_dict["total_steps"]
        if steps != self.total_steps:
            raise ValueError(
                f"the run started a one_cycle schedule of {steps} steps and cannot resume with "
                f"{self.total_steps}; use the number of epochs and the batch size that it was "
                "started with, or start a new run"
            )
        super().load_state_dict(state_dict)


def _warm_up_then(
    decay: Callable[[float], float], optimizer: Optimizer, total_steps: int, warmup: float
) -> LambdaLR:
    """Return a linear warmup, then `decay`, a function of the progress (0-1) after the warmup."""
    if total_steps < 1:
        raise ValueError(f"a schedule needs at least 1 optimizer step, got {total_steps}")
    if not 0 <= warmup < 1:
        raise ValueError(
            f"warmup is a fraction of the training steps, at least 0 and below 1; got {warmup}. "
            "For a warmup of n of N steps, set n / N"
        )
    warmup_steps = max(1, round(warmup * total_steps))
    decay_steps = max(1, total_steps - warmup_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / decay_steps
        return decay(min(1.0, progress))

    return LambdaLR(optimizer, factor)


def _check_fraction(name: str, fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise ValueError(
            f"{name} is a fraction of the peak learning rate, from 0 to 1; got {fraction}"
        )


def _check_momentum(momentum: Sequence[float] | None, optimizer: Optimizer) -> tuple[float, float]:
    if momentum is None:
        return 0.0, 0.0
    if len(momentum) != 2 or not 0 <= momentum[0] <= momentum[1] < 1:
        raise ValueError(
            f"momentum must be [lowest, highest] from 0 to below 1, or null, got {momentum}"
        )
    if optimizer.defaults.keys().isdisjoint({"momentum", "betas"}):
        raise ValueError(f"{type(optimizer).__name__} has no momentum to cycle; set momentum: null")
    return momentum[0], momentum[1]
