"""Save plots to the run folder, and pass them to the loggers.

Build figures with `matplotlib.figure.Figure`: pyplot opens windows and keeps global state.
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from loguru import logger
from matplotlib.figure import Figure
from PIL import Image

from cls_callbacks.trainer_access import get_run_paths
from cls_export.contract.files import open_atomically
from cls_export.contract.text import short_name

_MAX_NAME = 40
"""Characters of a class name in a plot."""


def save_plot(trainer: Trainer, plot: Figure | Image.Image, name: str) -> None:
    """Write plots/NAME.png to the run folder, and pass it to the trainer's loggers.

    A plot that cannot be written, for example on a full disk, is a warning: a run can do without.
    """
    path = get_run_paths(trainer).plots / f"{name}.png"
    try:
        with open_atomically(path) as stream:
            if isinstance(plot, Figure):
                with warnings.catch_warnings():
                    # A class name may have characters that the font lacks; they become boxes.
                    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
                    plot.savefig(stream, format="png", dpi=120, bbox_inches="tight")
            else:
                plot.save(stream, format="png")
    except OSError as error:
        logger.warning("{}: no plot ({})", path, error.strerror or error)
        return

    log_image(trainer.loggers, path, trainer.global_step)


def log_image(loggers: Iterable[Logger], path: Path, step: int) -> None:
    """Pass a PNG file to TensorBoard, Weights & Biases, and MLflow, named after the file.

    Other loggers are skipped. `step` is the number of optimizer steps so far.
    """
    for each in loggers:
        if isinstance(each, TensorBoardLogger):
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            each.experiment.add_image(path.stem, pixels, step, dataformats="HWC")
        elif isinstance(each, WandbLogger):
            each.log_image(path.stem, [str(path)], step)
        elif isinstance(each, MLFlowLogger):
            folder = path.parent.name
            each.experiment.log_artifact(each.run_id, str(path), folder)


def tick_labels(classes: Sequence[str]) -> list[str]:
    """Return class names as short lines of text; see `cls_export.contract.text.short_name`.

    Draw them with `parse_math=False`: matplotlib reads text between dollar signs as a formula.
    """
    return [short_name(name, _MAX_NAME) for name in classes]
