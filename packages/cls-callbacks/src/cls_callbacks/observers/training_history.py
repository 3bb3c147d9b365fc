"""Write every epoch's metrics to metrics.csv, and plot them."""

import csv
import io
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from loguru import logger
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cls_callbacks.observers.plots import save_plot
from cls_callbacks.trainer_access import get_run_paths
from cls_export.contract.files import write_atomically

Row = dict[str, float]
"""One epoch's metrics by name."""

_SINGLE_STEP_METRICS = ("train_loss_step", "grad_norm")
_EPOCH_METRICS = ("train_loss", "train_top1")
"""Logged when an epoch is complete."""


class TrainingHistoryWriter(Callback):
    """Write metrics.csv after each epoch, and plots/history.png after training.

    A row holds `epoch` (counted from 0), `step` (optimizer steps so far), and the metrics that were
    logged in the epoch; `lr` is the latest. Checkpoints hold the rows, so a resumed run writes the
    same file as an uninterrupted one. Lightning's CSVLogger deletes an existing file instead.

    Add it after the callbacks whose metrics it should contain.
    """

    def __init__(self) -> None:
        self.epochs: list[Row] = []
        self._validation_metrics: Row = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the metrics of the validation, because a run may be interrupted after it."""
        if trainer.sanity_checking:
            return
        self._validation_metrics = {}
        for name, value in trainer.callback_metrics.items():
            if name.startswith("valid_"):
                self._validation_metrics[name] = float(value)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a row, and write the file."""
        row: Row = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        for name, value in trainer.callback_metrics.items():
            # Lightning keeps the metrics of earlier epochs until they are logged again.
            is_stale = name.startswith("valid_")
            is_stale |= name in _EPOCH_METRICS and not trainer.is_last_batch
            if not is_stale and name not in _SINGLE_STEP_METRICS:
                row[name] = float(value)

        row |= self._validation_metrics
        self._validation_metrics = {}
        self.epochs.append(row)

        if not trainer.is_global_zero:
            return
        try:
            self._write(trainer)
        except OSError as error:
            # The checkpoints decide whether a full disk ends training.
            logger.warning("{}: {}", get_run_paths(trainer).metrics, error.strerror)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file and the plot, also for a run that was killed after its last epoch.

        Raises:
            OSError: metrics.csv cannot be written.
        """
        if trainer.is_global_zero and self.epochs:
            self._write(trainer)
            save_plot(trainer, history_figure(self.epochs), "history")

    def _write(self, trainer: Trainer) -> None:
        write_atomically(get_run_paths(trainer).metrics, _format_csv(self.epochs).encode())

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, and the validation metrics of the current epoch."""
        return {
            "epochs": self.epochs,
            "scores": self._validation_metrics,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a saved state."""
        self.epochs = list(state_dict["epochs"])
        self._validation_metrics = dict(state_dict.get("scores", {}))


def _format_csv(rows: list[Row]) -> str:
    names: set[str] = set()
    for row in rows:
        names.update(row)
    metrics = names - {"epoch", "step"}
    columns = ["epoch", "step", *sorted(metrics)]
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def history_figure(epochs: list[Row]) -> Figure:
    """Plot the losses (left) and the scores (right) of each epoch, counted from 1."""
    figure = Figure(figsize=(11, 4))
    left, right = figure.subplots(1, 2)

    left.set_title("loss, nats (training: as optimized)")
    _plot_metrics(left, epochs, ("train_loss", "valid_loss"))

    right.set_title("accuracy and macro-F1")
    _plot_metrics(right, epochs, ("train_top1", "valid_top1", "valid_top5", "valid_macro_f1"))
    return figure


def _plot_metrics(axes: Axes, epochs: list[Row], names: Iterable[str]) -> None:
    for name in names:
        logged = [row for row in epochs if name in row]
        if logged:
            numbers = [row["epoch"] + 1 for row in logged]
            values = [row[name] for row in logged]
            axes.plot(numbers, values, marker=".", label=name)
    axes.set_xlabel("epoch")
    locator: Any = axes.xaxis.get_major_locator()
    locator.set_params(integer=True)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
