"""How training went: every metric, in a file that an interruption neither shortens nor doubles."""

import csv
import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from cls_callbacks.figures import plots_folder, save_figure

Row = dict[str, float]


class TrainingHistory(Callback):
    """Keeps all metrics, writes metrics.csv after every epoch and plots/history.png at the end.

    A row is an epoch (`epoch` counted from 0, `step` the optimiser steps so far, everything that was logged), or,
    every `trainer.log_every_n_steps` steps, a step (train_loss_step, lr). The rows ride in the checkpoint and the
    file is written anew from them, so that a resumed run's file is that of an uninterrupted one. Lightning's own
    CSVLogger deletes the file that it finds.

    List it behind the callbacks whose metrics it is to see.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._steps: list[tuple[int, Tensor, float]] = []

    @property
    def epochs(self) -> list[Row]:
        """The rows of whole epochs."""
        return [row for row in self.rows if "train_loss_step" not in row]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss where it lies: to read it here would make the device wait."""
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]  # set undeclared
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            self._steps.append((trainer.global_step, outputs["loss"].detach().clone(), rate))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what the epoch logged, training and validation alike, and write the file."""
        for step, loss, rate in self._steps:
            self.rows.append({"epoch": trainer.current_epoch, "step": step, "train_loss_step": float(loss), "lr": rate})
        self._steps = []
        step_metrics = ("train_loss_step", "lr")
        metrics = {name: float(v) for name, v in trainer.callback_metrics.items() if name not in step_metrics}
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **metrics})
        if trainer.is_global_zero:
            _write(Path(trainer.default_root_dir) / "metrics.csv", self.rows)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        if trainer.is_global_zero and self.epochs:
            save_figure(history_figure(self.epochs), plots_folder(trainer) / "history.png")

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the rows so far."""
        self.rows = list(state_dict["rows"])


def _write(path: Path, rows: list[Row]) -> None:
    columns = ["epoch", "step", *sorted({name for row in rows for name in row} - {"epoch", "step"})]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(draft, path)


def history_figure(epochs: list[Row]) -> Figure:
    """Draw losses (left) and shares and macro-F1 (right) over the epochs, counted from 1."""
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
