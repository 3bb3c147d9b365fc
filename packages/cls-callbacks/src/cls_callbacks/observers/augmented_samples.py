"""Plot augmented training images."""

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from cls_callbacks.observers.plots import save_plot
from cls_callbacks.trainer_access import get_datamodule
from cls_data import ClassificationDataModule

_MIN_IMAGE_HEIGHT = 128
"""Smaller images are enlarged up to this height, in pixels."""


class AugmentedSamplesPlot(Callback):
    """Write plots/augmented.png when `fit` starts.

    Each column is one training image: as stored in the first row, augmented in the rows below.

    Args:
        columns: Number of training images, of different classes if possible.
        augmented_rows: Number of augmented versions of each.
    """

    def __init__(self, columns: int = 12, augmented_rows: int = 7) -> None:
        self.columns = columns
        self.augmented_rows = augmented_rows

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the plot."""
        data = get_datamodule(trainer)

        if trainer.is_global_zero:
            grid = augmented_samples_grid(data, self.columns, self.augmented_rows)
            save_plot(trainer, grid, "augmented")


def augmented_samples_grid(
    data: ClassificationDataModule, columns: int, augmented_rows: int
) -> Image.Image:
    """Return the grid as one image; small images are enlarged without smoothing."""
    samples = _select_from_all_classes(data, columns)
    tiles = data.augmented(samples, augmented_rows)
    rows, columns, channels, height, width = tiles.shape

    # [row, column, channel, y, x] -> [row, y, column, x, channel]
    interleaved = tiles.permute(0, 3, 1, 4, 2)
    pixels = interleaved.reshape(rows * height, columns * width, channels)
    grid = Image.fromarray(pixels.numpy())

    scale = max(1, _MIN_IMAGE_HEIGHT // height)
    size = (grid.width * scale, grid.height * scale)
    return grid.resize(size, Image.Resampling.NEAREST)


def _select_from_all_classes(data: ClassificationDataModule, count: int) -> list[int]:
    """Return one row of each of `count` evenly spaced classes; with fewer, add other rows."""
    records = data.records("train")

    first_rows: dict[str, int] = {}
    for row, record in enumerate(records):
        first_rows.setdefault(record.label, row)

    step = max(1, len(first_rows) // count)
    selected_classes = sorted(first_rows)[::step]
    selected = [first_rows[name] for name in selected_classes[:count]]

    for row in range(len(records)):
        if len(selected) >= count:
            break
        if row not in selected:
            selected.append(row)

    return selected
