"""Measure the share of training time of each callback.

Command:  uv run python benchmarks/callback_overhead.py            (about 4 minutes on two cores)
Expected: one row per callback, and the total of those that only observe.

Whole runs with and without callbacks differ by more than the callbacks cost, unless the machine is
idle. Therefore the time inside the hooks is summed. The figures are medians of the runs.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from composed_run import compose_run
from lightning.pytorch import Callback

from cls_data import keep_freed_memory
from cls_train.logs import configure_logging

NOT_OBSERVERS = ("EMA", "BestAndLastCheckpoint", "PreemptionCheckpoint")
"""Callbacks that change the trained weights or the checkpoints."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    configure_logging()
    keep_freed_memory()
    shares: dict[str, list[float]] = {}
    observer_costs: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"trainer.max_epochs={options.epochs}", "seed=1", f"data.root={folder}/data"]
        for round_number in range(options.rounds):
            fit_seconds, hook_seconds = time_fit(
                overrides, Path(folder) / str(round_number) / "run"
            )
            observing = 0.0
            for name, seconds in hook_seconds.items():
                shares.setdefault(name, []).append(seconds / fit_seconds)
                if name not in NOT_OBSERVERS:
                    observing += seconds
            observer_costs.append(observing / (fit_seconds - observing))
    print(f"{'callback':<28}{'of the fit':>12}")
    medians = {name: statistics.median(values) for name, values in shares.items()}
    for name in sorted(medians, key=lambda name: -medians[name]):
        note = "  (not an observer)" if name in NOT_OBSERVERS else ""
        print(f"{name:<28}{medians[name]:>12.2%}{note}")
    print(f"observers add {statistics.median(observer_costs):.2%} to {options.epochs} epochs")


def time_fit(overrides: list[str], folder: Path) -> tuple[float, dict[str, float]]:
    """Return the seconds of one fit, and the seconds inside the hooks of each callback."""
    run = compose_run(overrides, folder)
    hook_seconds: dict[str, float] = {}
    for callback in run.callbacks:
        time_hooks(callback, hook_seconds)
    started = time.perf_counter()
    run.fit()
    return time.perf_counter() - started, hook_seconds


def time_hooks(callback: Callback, hook_seconds: dict[str, float]) -> None:
    """Replace each hook of a callback with one that adds its duration to `hook_seconds`."""
    name = type(callback).__name__
    hook_seconds[name] = 0.0
    for attribute in dir(callback):
        if not attribute.startswith("on_") and attribute not in ("setup", "teardown"):
            continue
        hook = getattr(callback, attribute)
        if callable(hook):
            setattr(callback, attribute, timed(hook, name, hook_seconds))


def timed(
    hook: Callable[..., Any], name: str, hook_seconds: dict[str, float]
) -> Callable[..., Any]:
    """Return the hook with its duration added to `hook_seconds[name]`."""

    def timed_hook(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return hook(*args, **kwargs)
        finally:
            hook_seconds[name] += time.perf_counter() - started

    return timed_hook


if __name__ == "__main__":
    main()
