"""How training went: every metric, in a file that an interruption neither shortens nor doubles."""

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from cls_callbacks.observers.figures import save_picture
from cls_export.contract.files import write_atomically

Row = dict[str, float]


class TrainingHistory(Callback):
    """Keeps each epoch's metrics, writes metrics.csv after it and plots/history.png at the end.

    A row is an epoch: `epoch` counted from 0, `step` the optimizer steps so far, and what was logged in it; `lr` is the
    latest. The rows ride in the checkpoint and the file is written anew from them, so that a resumed run's file is that
    of an uninterrupted one. Lightning's own CSVLogger deletes the file that it finds.

    List it behind the callbacks whose metrics it is to see.
    """

    def __init__(self) -> None:
        self.epochs: list[Row] = []
        self._scores: Row = {}
        """Of the epoch's latest validation; empty before the first."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what this epoch's validation found: a run may go on behind it."""
        if not trainer.sanity_checking:
            found = trainer.callback_metrics.items()
            self._scores = {
                name: float(value) for name, value in found if name.startswith("valid_")
            }

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what the epoch logged, training and validation alike, and write the file."""
        stale = ["train_loss_step", "grad_norm"]  # of single steps
        stale += [
            name for name in trainer.callback_metrics if name.startswith("valid_")
        ]  # or of an earlier epoch
        stale += (
            [] if trainer.is_last_batch else ["train_loss", "train_top1"]
        )  # stopped before the epoch's end
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name not in stale
        }
        metrics |= self._scores
        self.epochs.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **metrics})
        self._scores = {}
        if trainer.is_global_zero:
            write_atomically(
                Path(trainer.default_root_dir) / "metrics.csv", _table(self.epochs).encode()
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        if trainer.is_global_zero and self.epochs:
            save_picture(trainer, history_figure(self.epochs), "history")

    def state_dict(self) -> dict[str, Any]:
        """Return the epochs so far, and the scores of the one that is under way."""
        return {"epochs": self.epochs, "scores": self._scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the epochs so far."""
        self.epochs, self._scores = list(state_dict["epochs"]), dict(state_dict.get("scores", {}))


def _table(rows: list[Row]) -> str:
    columns = ["epoch", "step", *sorted({name for row in rows for name in row} - {"epoch", "step"})]
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def history_figure(epochs: list[Row]) -> Figure:
    """Draw losses (left) and shares and macro-F1 (right) over the epochs, counted from 1."""
    figure = Figure(figsize=(11, 4))
    losses, scores = figure.subplots(1, 2)
    for axes, names, title in (
        (losses, ("train_loss", "valid_loss"), "loss, nats (training: as optimised)"),
        (
            scores,
            ("train_top1", "valid_top1", "valid_top5", "valid_macro_f1"),
            "share of images, macro-F1",
        ),
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
