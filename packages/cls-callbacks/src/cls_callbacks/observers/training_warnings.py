"""Warn about common problems of a training run."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from loguru import logger

from cls_callbacks.trainer_access import get_datamodule
from cls_data import EvaluationOutputs, HasEvaluationOutputs

_MAX_LISTED_CLASSES = 10


class TrainingWarnings(Callback):
    """Warn about a constant loss, underfitting from augmentation, and classes never predicted.

    A constant loss is logged at once; the others, about the last epoch, when training ends.

    Args:
        min_loss_change: Warn if the training loss has stayed within this share of its first value
            for `patience` epochs.
        patience: Epochs before that warning.
        max_accuracy_gap: Warn if top-1 accuracy on valid exceeds top-1 accuracy on augmented
            training images by more than this.
    """

    def __init__(
        self, *, min_loss_change: float = 0.01, patience: int = 3, max_accuracy_gap: float = 0.2
    ) -> None:
        self.min_loss_change = min_loss_change
        self.patience = patience
        self.max_accuracy_gap = max_accuracy_gap
        self._losses: list[float] = []
        self._loss_warnings: list[str] = []
        self._epoch_warnings: list[str] = []

    @property
    def messages(self) -> list[str]:
        """All warnings so far, including those from before the run was resumed."""
        return [*self._loss_warnings, *self._epoch_warnings]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the metrics and the predictions of the epoch."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if "train_loss" in metrics:
            self._check_loss(metrics["train_loss"])

        self._epoch_warnings = self._check_accuracy_gap(metrics)

        outputs = pl_module.outputs if isinstance(pl_module, HasEvaluationOutputs) else None
        if outputs is not None:
            classes = get_datamodule(trainer).classes
            self._epoch_warnings += _check_predicted_classes(outputs, classes)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the warnings about the last epoch."""
        for line in self._epoch_warnings:
            logger.warning("{}", line)

    def state_dict(self) -> dict[str, Any]:
        """Return the losses and the warnings so far."""
        return {
            "losses": self._losses,
            "of_loss": self._loss_warnings,
            "of_latest_epoch": self._epoch_warnings,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a saved state."""
        self._losses = list(state_dict["losses"])
        self._loss_warnings = list(state_dict["of_loss"])
        self._epoch_warnings = list(state_dict["of_latest_epoch"])

    def _check_loss(self, loss: float) -> None:
        self._losses.append(loss)
        if len(self._losses) < self.patience or self._loss_warnings:
            return

        first = self._losses[0]
        largest_change = max(abs(value - first) for value in self._losses)
        if largest_change > self.min_loss_change * abs(first):
            return

        warning = (
            f"The training loss has stayed at {first:.4f} for {len(self._losses)} epochs. "
            "The learning rate may be far too low or too high, or labels may not match images."
        )
        self._loss_warnings = [warning]
        logger.warning("{}", warning)

    def _check_accuracy_gap(self, metrics: dict[str, float]) -> list[str]:
        valid = metrics.get("valid_top1")
        train = metrics.get("train_top1")
        if valid is None or train is None or valid - train <= self.max_accuracy_gap:
            return []
        warning = (
            f"Top-1 accuracy is {valid:.1%} on valid but {train:.1%} on augmented training images. "
            "Augmentation or mixing may be stronger than needed."
        )
        return [warning]


def _check_predicted_classes(outputs: EvaluationOutputs, classes: tuple[str, ...]) -> list[str]:
    labeled = set(outputs.labels.tolist())
    predicted = set(outputs.logits.argmax(dim=1).tolist())
    missing = [repr(classes[index]) for index in sorted(labeled - predicted)]
    if not missing:
        return []

    names = ", ".join(missing[:_MAX_LISTED_CLASSES])
    if len(missing) > _MAX_LISTED_CLASSES:
        names += ", …"

    count = f"{len(missing)} of {len(labeled)} classes"
    return [f"{count} in {outputs.split} are never predicted: {names}"]
