"""Which classes are taken for which."""

import numpy as np
from lightning.pytorch import Trainer
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cls_callbacks.observers.after_evaluation import AfterEvaluation
from cls_callbacks.observers.figures import save_picture, tick_names
from cls_data import ClassificationDataModule, EvaluationOutputs

_MOST_NUMBERED = 60


def confusion_counts(outputs: EvaluationOutputs, num_classes: int) -> NDArray[np.int64]:
    """Count samples by true class (rows) and predicted class (columns): int64 [C, C]."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (outputs.labels.numpy(), outputs.logits.argmax(dim=1).numpy()), 1)
    return counts


class ConfusionMatrix(AfterEvaluation):
    """Draws plots/confusion_{split}.png after `validate` and `test`, from the outputs that the module gathered."""

    def report(
        self, trainer: Trainer, data: ClassificationDataModule, outputs: EvaluationOutputs
    ) -> None:
        """Draw."""
        figure = confusion_figure(
            confusion_counts(outputs, len(data.classes)), data.classes, outputs.split
        )
        save_picture(trainer, figure, f"confusion_{outputs.split}")


def confusion_figure(counts: NDArray[np.int64], classes: tuple[str, ...], split: str) -> Figure:
    """Draw counts [C, C]; color is on a logarithmic scale, so that a single mistake is seen beside hundreds."""
    size = len(classes)
    side = min(5 + 0.24 * size, 30)
    figure = Figure(figsize=(side, side))
    axes = figure.add_subplot()
    shown = np.ma.masked_equal(counts, 0)
    image = axes.imshow(shown, cmap="Blues", norm=LogNorm(vmin=0.5, vmax=max(2, int(counts.max()))))
    axes.set_facecolor("white")
    names = tick_names(classes)
    step = max(1, size // 80)
    axes.set_xticks(range(0, size, step), names[::step], rotation=90, fontsize=8)
    axes.set_yticks(range(0, size, step), names[::step], fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right = int(np.trace(counts))
    axes.set_title(f"{split}: {right} of {counts.sum()} right ({right / max(1, counts.sum()):.1%})")
    if size <= _MOST_NUMBERED:
        _number_the_cells(axes, counts)
    figure.colorbar(image, ax=axes, shrink=0.6, label="images")
    return figure


def _number_the_cells(axes: Axes, counts: NDArray[np.int64]) -> None:
    for true, predicted in np.argwhere(counts):
        value = counts[true, predicted]
        mistake = true != predicted
        dark = value > counts.max() ** 0.5
        color = "crimson" if mistake else "white" if dark else "black"
        axes.text(
            predicted,
            true,
            str(value),
            ha="center",
            va="center",
            fontsize=7,
            color=color,
            fontweight="bold" if mistake else "normal",
        )
