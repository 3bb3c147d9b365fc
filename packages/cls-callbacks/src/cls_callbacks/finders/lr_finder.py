"""Suggest a learning rate by a range test."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from loguru import logger
from matplotlib.figure import Figure

from cls_callbacks.observers.plots import save_plot
from cls_callbacks.trainer_access import get_run_paths


class LRFinder(LearningRateFinder):
    """Before the first step of a new run, suggest a learning rate, without setting it.

    The range test increases the learning rate with each step (Smith, "Cyclical Learning Rates for
    Training Neural Networks", section 3.3), logs the rate at which the loss falls fastest, and
    writes plots/learning_rate.png. It sets nothing, because a schedule is built with its rates, and
    a run's learning rate should be in its configuration. The weights of the training that follows
    stay bit-identical. All parameter groups use the same rate in the test, whatever their
    `lr_scale`.

    Runs that resume skip the test: Lightning's would discard the checkpoint's optimizer state and
    epoch (lightning 2.6.6).

    Args:
        min_lr: Learning rate of the first step.
        max_lr: Learning rate of the last step. The test ends earlier if the smoothed loss reaches
            four times its minimum.
        steps: Steps of the test, at most as many as the trainer's epochs have.
    """

    def __init__(self, min_lr: float = 1e-6, max_lr: float = 1.0, steps: int = 100) -> None:
        super().__init__(min_lr, max_lr, num_training_steps=steps, update_attr=False)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the test, and log the suggestion."""
        if trainer.ckpt_path is not None:
            return
        try:
            super().on_fit_start(trainer, pl_module)
        finally:
            # Lightning removes its temporary checkpoint, but not the checksum.
            for leftover in get_run_paths(trainer).path.glob(".lr_find_*"):
                leftover.unlink()
        if self.optimal_lr is None or not trainer.is_global_zero:
            return
        rate = self.optimal_lr.suggestion()
        if rate is None:
            logger.warning(
                "learning rate finder: too few steps for a suggestion. Set more trainer.max_epochs."
            )
            return
        logger.info(
            "learning rate finder: the loss fell fastest at {:.2g}. optimizer.lr is unchanged.",
            rate,
        )
        figure = Figure(figsize=(6, 4))
        self.optimal_lr.plot(suggest=True, ax=figure.add_subplot())
        save_plot(trainer, figure, "learning_rate")
