"""Suggest a learning rate by a range test."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from loguru import logger
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cls_callbacks.finders.lr_curve import (
    Curve,
    ImplausibleCurveError,
    find_steepest_rate,
    smooth,
    undo_exponential_smoothing,
)
from cls_callbacks.observers.plots import save_plot
from cls_callbacks.trainer_access import get_run_paths


class LRFinder(LearningRateFinder):
    """Before the first step of a new run, suggest a learning rate, without setting it.

    The range test increases the learning rate with each step (Smith, "Cyclical Learning Rates for
    Training Neural Networks", section 3.3), logs the rate at which the loss falls fastest, and
    writes plots/learning_rate.png. It suggests nothing, and logs why, if the test has fewer than 30
    steps or its curve is not plausible. It sets nothing, because a schedule is built with its
    rates, and a run's learning rate should be in its configuration. The weights of the training
    that follows stay bit-identical. All parameter groups use the same rate in the test, whatever
    their `lr_scale`.

    Runs that resume skip the test: Lightning's would discard the checkpoint's optimizer state and
    epoch (lightning 2.6.6).

    Args:
        min_lr: Learning rate of the first step, above 0.
        max_lr: Learning rate of the last step. The test ends earlier if the smoothed loss reaches
            four times its minimum.
        steps: Steps of the test, at most as many as the training has.

    Attributes:
        suggestion: The suggested learning rate; None if there is none.
    """

    def __init__(self, min_lr: float = 1e-6, max_lr: float = 1.0, steps: int = 100) -> None:
        if not 0 < min_lr < max_lr:
            raise ValueError(f"expected min_lr above 0 and below max_lr, got {min_lr} and {max_lr}")
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        super().__init__(min_lr, max_lr, num_training_steps=steps, update_attr=False)
        self.max_lr = max_lr
        self.steps = steps
        self.suggestion: float | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the test, and log the suggestion."""
        if trainer.ckpt_path is not None:
            return
        # Lightning's test would end below max_lr if training has fewer steps.
        self._num_training_steps = int(min(self.steps, trainer.estimated_stepping_batches))
        try:
            super().on_fit_start(trainer, pl_module)
        finally:
            # Lightning removes its temporary checkpoint, but not the checksum.
            for leftover in get_run_paths(trainer).path.glob(".lr_find_*"):
                leftover.unlink()
        if self.optimal_lr is None or not trainer.is_global_zero:
            return

        rates = self.optimal_lr.results["lr"]
        losses = undo_exponential_smoothing(self.optimal_lr.results["loss"])
        try:
            self.suggestion = find_steepest_rate(rates, losses.tolist(), self.max_lr)
        except ImplausibleCurveError as error:
            logger.warning("learning rate finder: no suggestion, because {}", error)
        else:
            logger.info(
                "learning rate finder: the loss fell fastest at {:.2g}. optimizer.lr is unchanged.",
                self.suggestion,
            )
        figure = Figure(figsize=(6, 4))
        _plot_curve(figure.add_subplot(), rates, losses, self.suggestion)
        save_plot(trainer, figure, "learning_rate")


def _plot_curve(axes: Axes, rates: list[float], losses: Curve, suggestion: float | None) -> None:
    axes.plot(rates, losses, ".", color="lightgray", label="each step")
    curve = smooth(losses)
    axes.plot(rates, curve, label="moving average")
    if suggestion is not None:
        position = rates.index(suggestion)
        axes.plot(suggestion, curve[position], "o", color="red", label="suggestion")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.legend()
