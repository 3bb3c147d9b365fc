"""Migrate checkpoints of version 0.1, so that their runs can be resumed."""

from typing import Any

_RENAMED_CALLBACKS = {
    "BestAndLast": "BestAndLastCheckpoint",
    "EarlyWarnings": "TrainingWarnings",
    "Throughput": "ImageThroughputMonitor",
    "TrainingHistory": "TrainingHistoryWriter",
}
"""Class names in version 0.1 and now; Lightning stores a callback's state under its class name."""


def migrate_checkpoint(checkpoint: dict[str, Any]) -> None:
    """Rename the callback states of a version 0.1 checkpoint in place; others stay unchanged."""
    states: dict[str, Any] = checkpoint.get("callbacks", {})
    for old_name, new_name in _RENAMED_CALLBACKS.items():
        if old_name in states:
            states[new_name] = states.pop(old_name)

    average = states.get("EMA", {})
    if "updates" in average:  # early checkpoints of version 0.1, which averaged after every step
        average["steps"] = average.pop("updates")
