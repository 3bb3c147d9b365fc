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


def save_plot(
    trainer: Trainer, plot: Figure | Image.Image, name: str, *, crop: bool = True
) -> None:
    """Write plots/NAME.png to the run folder, and pass it to the trainer's loggers.

    A plot that cannot be written, for example on a full disk, is a warning: a run can do without.

    Args:
        trainer: The trainer of the run.
        plot: A figure, or an image.
        name: The name of the plot.
        crop: Fit a figure's borders to its content, which draws it twice.
    """
    path = get_run_paths(trainer).plots / f"{name}.png"
    try:
        with open_atomically(path) as stream:
            if isinstance(plot, Figure):
                with warnings.catch_warnings():
                    # A class name may have characters that the font lacks; they become boxes.
                    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
                    box = "tight" if crop else None
                    plot.savefig(stream, format="png", dpi=120, bbox_inches=box)
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
            _add_png(each, path, step)
        elif isinstance(each, WandbLogger):
            each.log_image(path.stem, [str(path)], step)
        elif isinstance(each, MLFlowLogger):
            folder = path.parent.name
            each.experiment.log_artifact(each.run_id, str(path), folder)


def _add_png(tensorboard: TensorBoardLogger, path: Path, step: int) -> None:
    """Write a PNG file to TensorBoard as it is; `add_image` would encode its pixels again."""
    with Image.open(path) as opened:
        width, height = opened.size
        channels = len(opened.getbands())
        try:
            from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
        except ImportError:  # Lightning's logger also works with tensorboardX
            pixels = np.asarray(opened.convert("RGB"))
            tensorboard.experiment.add_image(path.stem, pixels, step, dataformats="HWC")
            return

    image = Summary.Image(
        height=height,
        width=width,
        colorspace=channels,
        encoded_image_string=path.read_bytes(),
    )
    summary = Summary(value=[Summary.Value(tag=path.stem, image=image)])
    tensorboard.experiment._get_file_writer().add_summary(summary, step)


def tick_labels(classes: Sequence[str]) -> list[str]:
    """Return class names as short lines of text; see `cls_export.contract.text.short_name`.

    Draw them with `parse_math=False`: matplotlib reads text between dollar signs as a formula.
    """
    return [short_name(name, _MAX_NAME) for name in classes]
