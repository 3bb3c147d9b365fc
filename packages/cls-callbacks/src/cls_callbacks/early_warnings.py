"""What a person would notice in the figures of a training, said in one line each."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from loguru import logger

from cls_callbacks.run_data import data_of
from cls_data import EvaluationOutputs, GathersOutputs

_NAMED = 10


class EarlyWarnings(Callback):
    """Warns of a loss that does not move, of a validation far better than training, and of classes never predicted.

    Each is logged once; `said` keeps all of them, through checkpoints too.

    Args:
        still: a training loss that has stayed within this share of its first value...
        patience: ...for so many epochs does not move.
        gap: by how much top-1 on valid may exceed that on augmented training images when training ends.
    """

    def __init__(self, *, still: float = 0.01, patience: int = 3, gap: float = 0.2) -> None:
        self.still = still
        self.patience = patience
        self.gap = gap
        self.said: list[str] = []
        self._losses: list[float] = []
        self._told_of_loss = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the loss."""
        if "train_loss" not in trainer.callback_metrics:
            return
        self._losses.append(float(trainer.callback_metrics["train_loss"]))
        first = self._losses[0]
        moved = max(abs(loss - first) for loss in self._losses) > self.still * abs(first)
        if len(self._losses) >= self.patience and not moved and not self._told_of_loss:
            self._told_of_loss = True
            self._say(
                f"the training loss has stayed at {first:.4f} for {len(self._losses)} epochs: the learning rate may be "
                "too low or far too high, or labels may not go with images"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the scores of the last epoch and at the answers of its validation."""
        values = {name: float(trainer.callback_metrics.get(name, 0)) for name in ("train_top1", "valid_top1")}
        if "train_top1" in trainer.callback_metrics and values["valid_top1"] - values["train_top1"] > self.gap:
            self._say(
                f"top-1 is {values['valid_top1']:.1%} on valid and {values['train_top1']:.1%} on augmented training "
                "images: augmentation or mixing may be stronger than it needs to be"
            )
        if isinstance(pl_module, GathersOutputs) and pl_module.outputs is not None:
            self._look_for_silent_classes(pl_module.outputs, data_of(trainer).classes)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run goes on with."""
        return {"said": self.said, "losses": self._losses, "told_of_loss": self._told_of_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.said, self._losses = list(state_dict["said"]), list(state_dict["losses"])
        self._told_of_loss = state_dict["told_of_loss"]

    def _look_for_silent_classes(self, outputs: EvaluationOutputs, classes: tuple[str, ...]) -> None:
        there, given = set(outputs.labels.tolist()), set(outputs.logits.argmax(dim=1).tolist())
        if silent := sorted(there - given):
            names = ", ".join(repr(classes[index]) for index in silent[:_NAMED]) + (
                ", …" if len(silent) > _NAMED else ""
            )
            self._say(f"{len(silent)} of {len(there)} classes in {outputs.split} are never predicted: {names}")

    def _say(self, line: str) -> None:
        self.said.append(line)
        logger.warning("{}", line)
