"""How a picture becomes a file, and reaches the loggers. No figure is built with pyplot: no window, no global state."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from PIL import Image


def save_picture(trainer: Trainer, picture: Figure | Image.Image, name: str) -> None:
    """Write plots/NAME.png into the run's folder, and hand it to the trainer's loggers."""
    path = Path(trainer.default_root_dir) / "plots" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, Figure):
        picture.savefig(path, dpi=120, bbox_inches="tight")
    else:
        picture.save(path)
    log_picture(trainer.loggers, path, trainer.global_step)


def log_picture(loggers: Iterable[Logger], path: Path, step: int) -> None:
    """Hand a PNG to the loggers that show pictures, under the file's name: TensorBoard's, W&B's and MLflow's.

    Args:
        loggers: others are passed over.
        path: of the file.
        step: optimizer steps so far.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            logger.experiment.add_image(path.stem, pixels, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(path.stem, [str(path)], step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifact(logger.run_id, str(path), path.parent.name)


def tick_names(classes: Sequence[str]) -> list[str]:
    """Return class names as labels of an axis: none of them invisible, none of them read as a formula."""
    return [name.replace("$", r"\$") or "(empty)" for name in classes]
