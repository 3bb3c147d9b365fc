"""A signal ends a training behind the batch that it is at, with a checkpoint from which it goes on exactly."""

import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from cls_callbacks.checkpointing.best_and_last import (
    BestAndLastCheckpoint,
    accumulates,
    can_go_on_behind,
)

EXIT_CODES = {"SIGTERM": 143, "SIGUSR1": 143, "SIGINT": 130}
"""By signal. A scheduler tells from 143 that the work is not done; Lightning's own leaves with 0 (2.6.6)."""

_ECHO_SECONDS = 1.0
"""Signals that follow the first so soon are its echo: `uv run` passes on what the whole process group got."""


class Interrupted(SystemExit):
    """A signal ended the training. Where nobody catches it, the process ends with the signal's exit code.

    Attributes:
        signal: its name, such as SIGTERM.
    """

    def __init__(self, name: str) -> None:
        super().__init__(EXIT_CODES[name])
        self.signal = name


class PreemptionCheckpoint(Checkpoint):
    """On SIGTERM, SIGUSR1 and SIGINT has BestAndLastCheckpoint save last.ckpt at the end of the batch, and raises `Interrupted`.

    In a validation it is saved before the next batch of that, and the run that goes on begins the validation anew. At
    an epoch's end it has been saved. Another signal, a second later or more, ends the process at once.

    It is a Checkpoint for Lightning to call it behind the callbacks whose state is saved. Signals reach a process's
    main thread alone; a training in another thread is left to them as it was.
    """

    def __init__(self) -> None:
        self._received: str | None = None
        self._received_at = 0.0
        self._before: dict[signal.Signals, Any] = {}
        self._saves_in_validation = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, in place of Lightning, which has begun to by now."""
        self._received = "SIGTERM" if trainer.received_sigterm else None
        if threading.current_thread() is not threading.main_thread():
            return
        for name in EXIT_CODES:
            if (number := getattr(signal, name, None)) is not None:  # Windows has no SIGUSR1
                self._before[number] = signal.signal(number, self._note)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and leave, unless the training could not go on from here."""
        if self._received is not None and can_go_on_behind(trainer, batch_idx):
            self._save_and_leave(trainer)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save and leave, unless gradients are being accumulated across this validation."""
        if self._received is None or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if not accumulates(trainer, trainer.fit_loop.epoch_loop.batch_idx):
            self._saves_in_validation = True
            self._save_and_leave(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave with what was saved at the end of the epoch before."""
        self._leave()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave with what was saved at the end of the last epoch."""
        self._leave()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Make Lightning begin an interrupted validation anew; it would go on in its middle, with the first batches.

        A validation counts as interrupted where one batch was started and not processed.
        """
        if not self._saves_in_validation:
            return
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
        for span in ("total", "current"):
            progress[span] = {
                **progress[span],
                "ready": 1,
                "started": 1,
                "processed": 0,
                "completed": 0,
            }
        progress["is_last_batch"] = False

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Listen no more."""
        self._restore()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no more."""
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._received is not None:
            if time.monotonic() - self._received_at > _ECHO_SECONDS:
                os._exit(EXIT_CODES[name])
            return
        self._received, self._received_at = name, time.monotonic()
        # Not the log, which this very thread may be writing to; and Ctrl-C may have ended what reads this.
        with contextlib.suppress(OSError):
            os.write(
                2,
                f"\n{name}: saves behind this batch and leaves; another one leaves at once\n".encode(),
            )

    def _save_and_leave(self, trainer: Trainer) -> None:
        for keeper in trainer.checkpoint_callbacks:
            if isinstance(keeper, BestAndLastCheckpoint):
                keeper.save_last(trainer)
        self._leave()

    def _leave(self) -> None:
        if self._received is not None:
            raise Interrupted(self._received)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._note:  # else somebody else listens by now
                signal.signal(number, handler)
        self._before, self._saves_in_validation = {}, False
