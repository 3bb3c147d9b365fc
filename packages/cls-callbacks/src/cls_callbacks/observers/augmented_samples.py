"""What the network gets to see: can a person still read it?"""

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from cls_callbacks.datamodule_access import get_datamodule
from cls_callbacks.observers.figures import save_picture
from cls_data import ClassificationDataModule

_SHOWN_SIDE = 128


class AugmentedSamples(Callback):
    """Writes plots/augmented.png when `fit` starts: a column an image, the stored one on top, draws below.

    Args:
        images: columns; training images of different classes as far as there are any.
        draws: rows below the first.
    """

    def __init__(self, images: int = 12, draws: int = 7) -> None:
        self.images = images
        self.draws = draws

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        data = get_datamodule(trainer)
        if trainer.is_global_zero:
            save_picture(trainer, sample_grid(data, self.images, self.draws), "augmented")


def sample_grid(data: ClassificationDataModule, images: int, draws: int) -> Image.Image:
    """Return the grid as one picture, small images enlarged without smoothing."""
    tiles = data.augmented(_spread_over_classes(data, images), draws)
    rows, columns, channels, height, width = tiles.shape
    levels = tiles.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    factor = max(1, _SHOWN_SIDE // height)
    picture = Image.fromarray(levels.numpy())
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )


def _spread_over_classes(data: ClassificationDataModule, count: int) -> list[int]:
    """Return the first row of each class in turn, then the first rows of all, up to `count`."""
    first = {record.label: row for row, record in reversed(list(enumerate(data.records("train"))))}
    step = max(1, len(first) // count)
    chosen = [first[name] for name in sorted(first)][::step][:count]
    others = [row for row in range(len(data.records("train"))) if row not in chosen]
    return [*chosen, *others][:count]
