"""Describe why training stopped before its last epoch."""

from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer


def describe_stop(trainer: Trainer, max_time: Any = None) -> str | None:
    """Describe an early end, such as "stopped after epoch 2 of 5 by EarlyStopping".

    Args:
        trainer: A trainer whose fit has ended without an error.
        max_time: The setting `trainer.max_time`, which adds a timer.

    Returns:
        The description; None if all epochs were completed.
    """
    progress: Any = trainer.fit_loop.epoch_progress.current  # declared as a base class
    epochs: int = progress.processed
    if not trainer.should_stop or trainer.max_epochs is None:
        return None
    is_complete = epochs >= trainer.max_epochs and trainer.is_last_batch
    if is_complete:
        return None

    cause = _find_cause(trainer, max_time)
    if trainer.global_step == 0:
        return f"stopped before the first step by {cause}"
    position = "after" if trainer.is_last_batch else "within"
    return f"stopped {position} epoch {epochs} of {trainer.max_epochs} by {cause}"


def _find_cause(trainer: Trainer, max_time: Any) -> str:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set undeclared
    for callback in callbacks:
        name = type(callback).__name__
        if isinstance(callback, Timer):
            remaining = callback.time_remaining()
            if remaining is not None and remaining <= 0:
                return f"trainer.max_time={max_time}" if max_time else name
        elif isinstance(callback, EarlyStopping):
            if callback.stopping_reason_message:
                return f"{name} ({callback.monitor})"
        elif getattr(callback, "stopped_epoch", 0):
            return name
    return "a callback"
