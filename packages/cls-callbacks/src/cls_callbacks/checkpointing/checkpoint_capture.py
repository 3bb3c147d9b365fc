"""Get the checkpoint that a trainer would write, without writing it."""

import os
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Trainer


def capture_checkpoint(trainer: Trainer) -> dict[str, Any] | None:
    """Return the checkpoint of this moment on the first rank, and None on the others.

    All ranks must call this. The tensors are those of the training, so the next step changes them.

    Raises:
        TypeError: The strategy writes its checkpoints itself.
    """
    strategy = trainer.strategy
    actual = strategy.checkpoint_io
    capture = _CapturingIO()
    strategy.checkpoint_io = capture
    try:
        trainer.save_checkpoint(Path("captured.ckpt"))
    finally:
        strategy.checkpoint_io = actual

    if trainer.is_global_zero and capture.checkpoint is None:
        raise TypeError(
            f"{type(strategy).__name__} writes checkpoints without trainer.plugins; use a "
            "strategy that gives them to a CheckpointIO, such as ddp"
        )
    return capture.checkpoint


class _CapturingIO(CheckpointIO):
    def __init__(self) -> None:
        self.checkpoint: dict[str, Any] | None = None

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        self.checkpoint = checkpoint

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        raise NotImplementedError

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        raise NotImplementedError
