"""best.ckpt and last.ckpt, each with the score that its very weights earned."""

import math
from pathlib import Path
from typing import Any, Literal, TypedDict

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

BEST = "best.ckpt"
LAST = "last.ckpt"


class ScoredWeights(TypedDict):
    """What a checkpoint says of its `state_dict`, under the key `scored`.

    `weights` is `ema` when an average was validated and saved, else `raw`; `epoch` counts from 0;
    `step` counts optimiser steps.
    """

    metric: str
    value: float
    epoch: int
    step: int
    weights: Literal["ema", "raw"]


class BestAndLast(Checkpoint):
    """Saves best.ckpt right after the validation that earned it, and last.ckpt at the end of every epoch.

    Both lie in `trainer.default_root_dir/checkpoints`. Of equal scores the earlier stays.

    Args:
        monitor: the metric that decides, as the module logs it.
        mode: whether it is to be large or small.
    """

    def __init__(self, monitor: str = "valid_top1", mode: Literal["max", "min"] = "max") -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
        self.monitor = monitor
        self.mode = mode
        self.best_score: float | None = None
        self._score: ScoredWeights | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save best.ckpt if this validation beat all before it."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = self._monitored(trainer)
        self._score = ScoredWeights(
            metric=self.monitor, value=value, epoch=trainer.current_epoch, step=trainer.global_step, weights="raw"
        )
        if self._is_better(value):
            self.best_score = value
            trainer.save_checkpoint(_folder(trainer) / BEST)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save last.ckpt, from which a run goes on."""
        trainer.save_checkpoint(_folder(trainer) / LAST)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the score beside the weights that earned it; EMA has said before whether it averaged them."""
        if self._score is not None and self._score["step"] == trainer.global_step:
            checkpoint["scored"] = {**self._score, "weights": checkpoint.get("weights", "raw")}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"best_score": self.best_score, "monitor": self.monitor, "mode": self.mode}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        if (state_dict["monitor"], state_dict["mode"]) == (self.monitor, self.mode):
            self.best_score = state_dict["best_score"]

    def _monitored(self, trainer: Trainer) -> float:
        if self.monitor not in trainer.callback_metrics:
            raise ValueError(
                f"monitor {self.monitor!r} is not logged; logged are {', '.join(sorted(trainer.callback_metrics))}"
            )
        return float(trainer.callback_metrics[self.monitor])

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best_score is None:
            return True
        return value > self.best_score if self.mode == "max" else value < self.best_score


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "checkpoints"
