"""Start the evaluation process shortly before training ends."""

import time
from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer

HEAD_START = 20.0
"""Seconds before the expected end of training. Imports and the first export take 7 to 15 s."""


class EvaluationStarter(Callback):
    """Start the evaluation process in the last epoch, or earlier if the last epochs are short.

    Add it only to training on a GPU. On a CPU, the imports of the process would slow down the
    training steps by as much as they save.

    Args:
        start: Starts the process, unless it runs already.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, start: Callable[[], None], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._start = start
        self._clock = clock
        self._epoch_started: float | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the process if the remaining epochs, each as long as the previous, end soon."""
        now = self._clock()
        if trainer.max_epochs is None:
            return
        remaining = trainer.max_epochs - trainer.current_epoch
        seconds = float("inf")
        if self._epoch_started is not None:
            seconds = remaining * (now - self._epoch_started)
        self._epoch_started = now
        if remaining == 1 or seconds <= HEAD_START:
            self._start()
