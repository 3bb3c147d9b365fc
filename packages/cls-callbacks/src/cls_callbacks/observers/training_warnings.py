"""What a person would notice in the figures of a training, said in one line each."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from loguru import logger

from cls_callbacks.datamodule_access import get_datamodule
from cls_data import EvaluationOutputs, HasEvaluationOutputs

_NAMED = 10


class TrainingWarnings(Callback):
    """Warns of a loss that does not move, of a validation far better than training, and of classes never predicted.

    The first is logged at once, the others, of the last epoch alone, when training ends.

    Args:
        still: a training loss that has stayed within this share of its first value...
        patience: ...for so many epochs does not move.
        gap: by how much top-1 on valid may exceed that on augmented training images.
    """

    def __init__(self, *, still: float = 0.01, patience: int = 3, gap: float = 0.2) -> None:
        self.still = still
        self.patience = patience
        self.gap = gap
        self._losses: list[float] = []
        self._of_loss: list[str] = []
        self._of_latest_epoch: list[str] = []

    @property
    def said(self) -> list[str]:
        """All that there is to say so far, through checkpoints too."""
        return [*self._of_loss, *self._of_latest_epoch]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the epoch's figures, and at the answers of its validation."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if "train_loss" in metrics:
            self._look_at_loss(metrics["train_loss"])
        outputs = pl_module.outputs if isinstance(pl_module, HasEvaluationOutputs) else None
        self._of_latest_epoch = [
            *self._about_the_gap(metrics),
            *(
                self._about_silent_classes(outputs, get_datamodule(trainer).classes)
                if outputs is not None
                else []
            ),
        ]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what is to be said of the last epoch."""
        for line in self._of_latest_epoch:
            logger.warning("{}", line)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run goes on with."""
        return {
            "losses": self._losses,
            "of_loss": self._of_loss,
            "of_latest_epoch": self._of_latest_epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._losses, self._of_loss = list(state_dict["losses"]), list(state_dict["of_loss"])
        self._of_latest_epoch = list(state_dict["of_latest_epoch"])

    def _look_at_loss(self, loss: float) -> None:
        self._losses.append(loss)
        first = self._losses[0]
        moved = max(abs(each - first) for each in self._losses) > self.still * abs(first)
        if len(self._losses) >= self.patience and not moved and not self._of_loss:
            self._of_loss = [
                f"the training loss has stayed at {first:.4f} for {len(self._losses)} epochs: the learning rate may be "
                "too low or far too high, or labels may not go with images"
            ]
            logger.warning("{}", self._of_loss[0])

    def _about_the_gap(self, metrics: dict[str, float]) -> list[str]:
        valid, train = metrics.get("valid_top1"), metrics.get("train_top1")
        if valid is None or train is None or valid - train <= self.gap:
            return []
        return [
            f"top-1 is {valid:.1%} on valid and {train:.1%} on augmented training images: augmentation or mixing may "
            "be stronger than it needs to be"
        ]

    def _about_silent_classes(
        self, outputs: EvaluationOutputs, classes: tuple[str, ...]
    ) -> list[str]:
        there, given = set(outputs.labels.tolist()), set(outputs.logits.argmax(dim=1).tolist())
        silent = [repr(classes[index]) for index in sorted(there - given)]
        if not silent:
            return []
        names = ", ".join(silent[:_NAMED]) + (", …" if len(silent) > _NAMED else "")
        return [
            f"{len(silent)} of {len(there)} classes in {outputs.split} are never predicted: {names}"
        ]
