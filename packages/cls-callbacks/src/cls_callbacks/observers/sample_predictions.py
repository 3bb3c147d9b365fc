"""Plot correct and wrong predictions."""

import torch
from lightning.pytorch import Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cls_callbacks.observers.evaluation_callback import EvaluationCallback
from cls_callbacks.observers.plots import save_plot, tick_labels
from cls_data import ClassificationDataModule, EvaluationOutputs


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
    """Plot the selected images, from pixels uint8 [N, 3, H, W], with prediction and label."""
    confidence, predictions = outputs.logits.float().softmax(dim=1).max(dim=1)
    names = tick_labels(classes)

    figure = Figure(figsize=(1.15 * columns, 5.2))
    grid = figure.subplots(3, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()

    selected = select_samples(outputs, columns)
    for row, (title, samples) in zip(grid, selected.items(), strict=True):
        _write_row_title(row[0], title if len(samples) else f"{title}: none")
        for axes, sample in zip(row, samples.tolist(), strict=False):
            image = pixels[outputs.index[sample]]
            axes.imshow(image.permute(1, 2, 0).numpy())

            prediction = int(predictions[sample])
            label = int(outputs.labels[sample])
            text = f"{names[prediction]}  {float(confidence[sample]):.0%}"
            color = "black"
            if prediction != label:
                text += f"\nis {names[label]}"
                color = "crimson"
            axes.set_title(text, fontsize=7, color=color, pad=2, parse_math=False)

    figure.subplots_adjust(hspace=0.75)
    return figure


def _write_row_title(axes: Axes, title: str) -> None:
    axes.text(0, 1.42, title, transform=axes.transAxes, fontsize=9)
