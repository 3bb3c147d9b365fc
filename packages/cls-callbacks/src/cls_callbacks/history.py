"""How training went, epoch by epoch."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from cls_callbacks.figures import plots_folder, save_figure

Epoch = dict[str, float]


class TrainingHistory(Callback):
    """Keeps every epoch's logged metrics, through checkpoints too, and draws plots/history.png when `fit` ends."""

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what the epoch logged, training and validation alike."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.epochs.append({"epoch": trainer.current_epoch, **metrics})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        if trainer.is_global_zero and self.epochs:
            save_figure(history_figure(self.epochs), plots_folder(trainer) / "history.png")

    def state_dict(self) -> dict[str, Any]:
        """Return the epochs so far."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the epochs so far."""
        self.epochs = list(state_dict["epochs"])


def history_figure(epochs: list[Epoch]) -> Figure:
    """Draw losses (left) and every other 0-1 metric of the validation (right) over the epochs, counted from 1."""
    figure = Figure(figsize=(11, 4))
    losses, scores = figure.subplots(1, 2)
    for axes, names, title in (
        (losses, ("train_loss", "valid_loss"), "loss, nats (training: as optimised)"),
        (scores, ("train_top1", "valid_top1", "valid_top5", "valid_macro_f1"), "share of images, macro-F1"),
    ):
        for name in names:
            points = [(epoch["epoch"] + 1, epoch[name]) for epoch in epochs if name in epoch]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=name)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return figure
