"""Which learning rate a short range test would choose."""

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from loguru import logger
from matplotlib.figure import Figure

from cls_callbacks.observers.figures import save_picture


class LRFinder(LearningRateFinder):
    """Before a new run's first step, raises the rate from step to step; logs where the loss fell fastest, and draws it.

    Writes plots/learning_rate.png. It suggests and sets nothing: a schedule keeps the rates that it was made with, and
    what a run trained with is to be read in its configuration. The training that follows is the one that would have
    been without it, to the bit. All parameter groups have one rate in the test, whatever their `lr_scale` is.

    The test is Lightning's (Smith, "Cyclical Learning Rates for Training Neural Networks", section 3.3). A run that
    goes on is left alone: within it, Lightning 2.6.6's would forget the checkpoint's optimizer and epoch.

    Args:
        min_lr: rate of the first step.
        max_lr: rate of the last step, unless the smoothed loss reaches four times its lowest before.
        steps: of the test, as far as the trainer's epochs hold so many.
    """

    def __init__(self, min_lr: float = 1e-6, max_lr: float = 1.0, steps: int = 100) -> None:
        super().__init__(min_lr, max_lr, num_training_steps=steps, update_attr=False)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Test and suggest."""
        if trainer.ckpt_path is not None:
            return
        try:
            super().on_fit_start(trainer, pl_module)
        finally:
            for rest in Path(trainer.default_root_dir).glob(
                ".lr_find_*"
            ):  # a checksum, which Lightning knows not of
                rest.unlink()
        if self.optimal_lr is None or not trainer.is_global_zero:
            return
        if (rate := self.optimal_lr.suggestion()) is None:
            logger.warning(
                "range test: too few steps to suggest a learning rate; give it more epochs to take them from"
            )
            return
        logger.info(
            "range test: the loss fell fastest at a learning rate of {:.2g}; what is set stays",
            rate,
        )
        figure = Figure(figsize=(6, 4))
        self.optimal_lr.plot(suggest=True, ax=figure.add_subplot())
        save_picture(trainer, figure, "learning_rate")
