"""Plot correct and wrong predictions."""

import torch
from lightning.pytorch import Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cls_callbacks.observers.evaluation_callback import EvaluationCallback
from cls_callbacks.observers.plots import save_plot, tick_labels
from cls_data import ClassificationDataModule, EvaluationOutputs

_CELL_WIDTH = 1.15
_CELL_HEIGHT = 1.75
_IMAGE_SIZE = 1.0
_MARGIN = 0.1
_ROW_TITLE_BOTTOM = 0.25
_CAPTION_BOTTOM = 0.6
"""Sizes and positions in inches. Those of text are measured from the top of its row."""


class SamplePredictionsPlot(EvaluationCallback):
    """Write plots/predictions_{split}.png after `validate` and `test`.

    The rows are the most confident mistakes, the least confident mistakes, and correct predictions
    from most to least confident.

    Args:
        columns: Largest number of images in a row.
    """

    def __init__(self, columns: int = 12) -> None:
        self.columns = columns

    def on_evaluation_end(
        self, trainer: Trainer, data: ClassificationDataModule, outputs: EvaluationOutputs
    ) -> None:
        """Write the plot."""
        pixels = data.pixels(outputs.split)
        figure = sample_predictions_figure(outputs, pixels, data.classes, self.columns)
        save_plot(trainer, figure, f"predictions_{outputs.split}")


def select_samples(outputs: EvaluationOutputs, columns: int) -> dict[str, Tensor]:
    """Return indices into the outputs, int64, for each row of the plot, by its title."""
    confidence, predictions = outputs.logits.float().softmax(dim=1).max(dim=1)
    is_mistake = predictions != outputs.labels
    order = confidence.argsort(descending=True, stable=True)

    mistakes = order[is_mistake[order]]
    correct = order[~is_mistake[order]]

    most_confident = mistakes[:columns]
    least_confident = mistakes[len(most_confident) :].flip(0)[:columns]

    last = max(0, len(correct) - 1)
    evenly_spaced = torch.linspace(0, last, min(columns, len(correct))).round().long()

    return {
        "most confident mistakes": most_confident,
        "least confident mistakes": least_confident,
        "correct, most to least confident": correct[evenly_spaced],
    }


def sample_predictions_figure(
    outputs: EvaluationOutputs, pixels: Tensor, classes: tuple[str, ...], columns: int
) -> Figure:
    """Plot the selected images, from pixels uint8 [N, 3, H, W], with prediction and label.

    All images are in one `Axes`, in inches: an `Axes` for each takes ten times as long to draw.
    """
    confidence, predictions = outputs.logits.float().softmax(dim=1).max(dim=1)
    names = tick_labels(classes)
    selected = select_samples(outputs, columns)

    width = _CELL_WIDTH * columns
    height = _CELL_HEIGHT * len(selected)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()

    for row, (title, samples) in enumerate(selected.items()):
        top = row * _CELL_HEIGHT
        row_title = title if len(samples) else f"{title}: none"
        axes.text(_MARGIN, top + _ROW_TITLE_BOTTOM, row_title, fontsize=9, va="bottom")

        for column, sample in enumerate(samples.tolist()):
            center = (column + 0.5) * _CELL_WIDTH
            _draw_image(axes, pixels[outputs.index[sample]], center, top + _CELL_HEIGHT)

            prediction = int(predictions[sample])
            label = int(outputs.labels[sample])
            text = f"{names[prediction]}  {float(confidence[sample]):.0%}"
            color = "black"
            if prediction != label:
                text += f"\nis {names[label]}"
                color = "crimson"
            axes.text(
                center,
                top + _CAPTION_BOTTOM,
                text,
                fontsize=7,
                color=color,
                ha="center",
                va="bottom",
                parse_math=False,
            )

    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure


def _draw_image(axes: Axes, pixels: Tensor, center: float, bottom: float) -> None:
    """Draw pixels uint8 [3, H, W] as large as they fit into a square above `bottom`."""
    _, height, width = pixels.shape
    scale = _IMAGE_SIZE / max(height, width)
    left = center - width * scale / 2
    right = center + width * scale / 2
    lower = bottom - _MARGIN
    extent = (left, right, lower, lower - height * scale)
    axes.imshow(pixels.permute(1, 2, 0).numpy(), extent=extent, aspect="auto")
