"""Save plots to the run folder, and pass them to the loggers.

Build figures with `matplotlib.figure.Figure`: pyplot opens windows and keeps global state.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from PIL import Image

from cls_callbacks.trainer_access import get_run_paths


def save_plot(trainer: Trainer, plot: Figure | Image.Image, name: str) -> None:
    """Write plots/NAME.png to the run folder, and pass it to the trainer's loggers."""
    path = get_run_paths(trainer).plots / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)

    if isinstance(plot, Figure):
        plot.savefig(path, dpi=120, bbox_inches="tight")
    else:
        plot.save(path)

    log_image(trainer.loggers, path, trainer.global_step)


def log_image(loggers: Iterable[Logger], path: Path, step: int) -> None:
    """Pass a PNG file to TensorBoard, Weights & Biases, and MLflow, named after the file.

    Other loggers are skipped. `step` is the number of optimizer steps so far.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            logger.experiment.add_image(path.stem, pixels, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(path.stem, [str(path)], step)
        elif isinstance(logger, MLFlowLogger):
            folder = path.parent.name
            logger.experiment.log_artifact(logger.run_id, str(path), folder)


def tick_labels(classes: Sequence[str]) -> list[str]:
    """Return class names as axis labels: dollar signs escaped, an empty name as `(empty)`."""
    escaped = [name.replace("$", r"\$") for name in classes]
    return [name or "(empty)" for name in escaped]
