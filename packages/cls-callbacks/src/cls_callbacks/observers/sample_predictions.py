"""What the network got right and wrong, to look at."""

import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from torch import Tensor

from cls_callbacks.observers.after_evaluation import AfterEvaluation
from cls_callbacks.observers.figures import save_picture, tick_names
from cls_data import ClassificationDataModule, EvaluationOutputs


class SamplePredictions(AfterEvaluation):
    """Draws plots/predictions_{split}.png after `validate` and `test`, from the outputs that the module gathered.

    Three rows: the surest mistakes, the least sure mistakes, and right answers, spread evenly from sure to unsure.

    Args:
        columns: images in a row, at most.
    """

    def __init__(self, columns: int = 12) -> None:
        self.columns = columns

    def report(
        self, trainer: Trainer, data: ClassificationDataModule, outputs: EvaluationOutputs
    ) -> None:
        """Draw."""
        figure = predictions_figure(outputs, data.pixels(outputs.split), data.classes, self.columns)
        save_picture(trainer, figure, f"predictions_{outputs.split}")


def chosen_samples(outputs: EvaluationOutputs, columns: int) -> dict[str, Tensor]:
    """Return positions among the outputs, int64, by what they show; fewer than `columns` where there are no more."""
    confidence, answer = outputs.logits.float().softmax(dim=1).max(dim=1)
    wrong = answer != outputs.labels
    order = confidence.argsort(descending=True, stable=True)
    mistakes, right = order[wrong[order]], order[~wrong[order]]
    spread = torch.linspace(0, max(0, len(right) - 1), min(columns, len(right))).round().long()
    surest = mistakes[:columns]
    return {
        "surest mistakes": surest,
        "least sure mistakes": mistakes[len(surest) :].flip(0)[:columns],
        "right, from sure to unsure": right[spread],
    }


def predictions_figure(
    outputs: EvaluationOutputs, pixels: Tensor, classes: tuple[str, ...], columns: int
) -> Figure:
    """Draw the chosen samples of stored images uint8 [N, 3, H, W], each under answer, confidence and truth."""
    confidence, answer = outputs.logits.float().softmax(dim=1).max(dim=1)
    names = tick_names(classes)
    figure = Figure(figsize=(1.15 * columns, 5.2))
    axes = figure.subplots(3, columns, squeeze=False)
    for each in axes.flat:
        each.set_axis_off()
    for row, (title, places) in zip(axes, chosen_samples(outputs, columns).items(), strict=True):
        row[0].text(
            0,
            1.42,
            f"{title}" if len(places) else f"{title}: none",
            transform=row[0].transAxes,
            fontsize=9,
        )
        for each, place in zip(row, places.tolist(), strict=False):
            each.imshow(pixels[outputs.index[place]].permute(1, 2, 0).numpy())
            said, truth = int(answer[place]), int(outputs.labels[place])
            right = said == truth
            text = f"{names[said]}  {float(confidence[place]):.0%}" + (
                "" if right else f"\nis {names[truth]}"
            )
            each.set_title(text, fontsize=7, color="black" if right else "crimson", pad=2)
    figure.subplots_adjust(hspace=0.75)
    return figure
