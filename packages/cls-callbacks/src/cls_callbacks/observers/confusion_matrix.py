"""Plot the confusion matrix."""

import numpy as np
from lightning.pytorch import Trainer
from loguru import logger
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cls_callbacks.observers.evaluation_callback import EvaluationCallback
from cls_callbacks.observers.plots import save_plot, tick_labels
from cls_data import ClassificationDataModule, EvaluationOutputs
from cls_export.contract.text import count_columns

_MAX_CLASSES = 2000
"""More classes have less than a pixel each, and 10,000 of them take 3 GB of memory."""

_MAX_CLASSES_WITH_COUNTS = 60
_MAX_TICKS = 80
_INCHES_PER_CHARACTER = 0.08
_RIGHT = 1.3
_TOP = 0.5
"""Margins of the plot in inches; the color scale is in the right one."""


class ConfusionMatrixPlot(EvaluationCallback):
    """Write plots/confusion_{split}.png after `validate` and `test`, for up to 2,000 classes."""

    def on_evaluation_end(
        self, trainer: Trainer, data: ClassificationDataModule, outputs: EvaluationOutputs
    ) -> None:
        """Write the plot."""
        num_classes = len(data.classes)
        if num_classes > _MAX_CLASSES:
            logger.info(
                "no plots/confusion_{}.png: {} classes, and a plot has at most {}",
                outputs.split,
                num_classes,
                _MAX_CLASSES,
            )
            return
        counts = count_confusions(outputs, num_classes)
        figure = confusion_figure(counts, data.classes, outputs.split)
        save_plot(trainer, figure, f"confusion_{outputs.split}", crop=False)


def count_confusions(outputs: EvaluationOutputs, num_classes: int) -> NDArray[np.int64]:
    """Count samples by true class (rows) and predicted class (columns): int64 [C, C]."""
    labels = outputs.labels.numpy()
    predictions = outputs.logits.argmax(dim=1).numpy()
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def confusion_figure(counts: NDArray[np.int64], classes: tuple[str, ...], split: str) -> Figure:
    """Plot counts [C, C] on a logarithmic color scale, so that single mistakes are visible."""
    num_classes = len(classes)
    step = max(1, num_classes // _MAX_TICKS)
    ticks = range(0, num_classes, step)
    labels = tick_labels(classes)[::step]

    # Margins are computed, because finding them would draw the figure twice.
    side = min(3 + 0.22 * num_classes, 24)
    margin = 0.6 + _INCHES_PER_CHARACTER * max(count_columns(label) for label in labels)
    width = margin + side + _RIGHT
    height = margin + side + _TOP
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))

    scale = LogNorm(vmin=0.5, vmax=max(2, int(counts.max())))
    image = axes.imshow(np.ma.masked_equal(counts, 0), cmap="Blues", norm=scale)
    axes.set_facecolor("white")

    axes.set_xticks(ticks, labels, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(ticks, labels, fontsize=8, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")

    correct = int(np.trace(counts))
    total = int(counts.sum())
    accuracy = correct / max(1, total)
    axes.set_title(f"{split}: {correct} of {total} correct ({accuracy:.1%})")

    if num_classes <= _MAX_CLASSES_WITH_COUNTS:
        _write_counts(axes, counts)
    bar = figure.add_axes(
        (
            (margin + side + 0.2) / width,
            (margin + 0.2 * side) / height,
            0.2 / width,
            0.6 * side / height,
        )
    )
    figure.colorbar(image, cax=bar, label="images")
    return figure


def _write_counts(axes: Axes, counts: NDArray[np.int64]) -> None:
    for true, predicted in np.argwhere(counts):
        count = counts[true, predicted]
        is_mistake = true != predicted
        is_dark = count > counts.max() ** 0.5
        color = "white" if is_dark else "black"
        axes.text(
            predicted,
            true,
            str(count),
            ha="center",
            va="center",
            fontsize=7,
            color="crimson" if is_mistake else color,
            fontweight="bold" if is_mistake else "normal",
        )
