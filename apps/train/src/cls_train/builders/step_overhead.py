"""Shorten what Lightning does around each step, which a fast GPU would wait for.

With 20 callbacks, Lightning enters a context manager 120 times a step, mostly around hooks that do
nothing (2.6.6). `benchmarks/step_overhead.py` measures the gain.
"""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.profilers import PassThroughProfiler

_STEP_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_validation_batch_start",
    "on_validation_batch_end",
)

_NOTHING = nullcontext()


class NoProfiler(PassThroughProfiler):
    """Profiles nothing, like its parent, without a new context manager for each hook."""

    def profile(self, action_name: str) -> Any:
        """Return a context manager that does nothing."""
        return _NOTHING


def skip_empty_hooks(callbacks: Iterable[Callback]) -> None:
    """Let Lightning skip the hooks of each step that a callback does not override.

    Lightning calls a hook only if it is callable.
    """
    for callback in callbacks:
        for name in _list_empty_hooks(callback):
            setattr(callback, name, None)


def _list_empty_hooks(callback: Callback) -> Iterator[str]:
    for name in _STEP_HOOKS:
        is_own_class = name not in vars(callback)
        if is_own_class and getattr(type(callback), name) is getattr(Callback, name):
            yield name
