"""Save a checkpoint and exit when a signal arrives."""

import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from cls_callbacks.checkpointing.best_and_last import BestAndLastCheckpoint
from cls_callbacks.checkpointing.rank_agreement import RankAgreement
from cls_callbacks.checkpointing.resume_points import can_resume_after_batch, is_accumulating

EXIT_CODES = {"SIGTERM": 143, "SIGUSR1": 143, "SIGINT": 130}
"""Exit code by signal. A nonzero code tells a scheduler that the job is not finished; Lightning's
own handler exits with 0 (lightning 2.6.6)."""

_SIGNALS = ("", *EXIT_CODES)
"""Names by the number that ranks exchange; 0 for no signal."""

_ECHO_SECONDS = 1.0
"""Ignore repeats this soon after the first signal: `uv run` forwards a signal that the process
group has already received."""


class TrainingInterrupted(SystemExit):
    """A signal ended training; if not caught, the process exits with the signal's exit code.

    Attributes:
        signal: Name of the signal, such as SIGTERM.
    """

    def __init__(self, name: str) -> None:
        super().__init__(EXIT_CODES[name])
        self.signal = name


class PreemptionCheckpoint(Checkpoint):
    """On SIGTERM, SIGUSR1, or SIGINT, save last.ckpt and raise `TrainingInterrupted`.

    `BestAndLastCheckpoint` saves the file at the end of the current batch. During validation it is
    saved before the next validation batch, and the resumed run repeats the validation. At the end
    of an epoch it has been saved already. A second signal, at least one second later, exits
    immediately.

    On several devices, a signal to any rank stops all of them at the same batch: one batch later
    than on a single device, because the ranks exchange their signals during a batch.

    This is a `Checkpoint`, so that Lightning calls it after the callbacks whose state is saved.
    Signals reach only the main thread, so training in another thread is not affected.
    """

    def __init__(self) -> None:
        self._received: str | None = None
        self._received_at = 0.0
        self._agreed: str | None = None
        self._agreement: RankAgreement | None = None
        self._previous_handlers: dict[signal.Signals, Any] = {}
        self._restarts_validation = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the handlers; Lightning has installed its own by now."""
        self._received = "SIGTERM" if trainer.received_sigterm else None
        self._agreed = None
        self._agreement = RankAgreement(trainer)
        if threading.current_thread() is not threading.main_thread():
            return
        for name in EXIT_CODES:
            number = getattr(signal, name, None)
            if number is not None:  # Windows has no SIGUSR1
                self._previous_handlers[number] = signal.signal(number, self._on_signal)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and exit if a signal arrived and training can resume from here."""
        if self._has_agreed() and can_resume_after_batch(trainer, batch_idx):
            self._save_and_exit(trainer)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save and exit if a signal arrived, unless gradients are being accumulated."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or not self._has_agreed():
            return
        if not is_accumulating(trainer, trainer.fit_loop.epoch_loop.batch_idx):
            self._restarts_validation = True
            self._save_and_exit(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exit if a signal arrived; the checkpoint was saved at the end of the last epoch."""
        self._settle()
        self._exit_if_agreed(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exit if a signal arrived; the checkpoint was saved at the end of the last epoch."""
        self._settle()
        self._exit_if_agreed(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Make the resumed run repeat an interrupted validation.

        Lightning would resume in the middle of it, but with the first batches. It restarts a
        validation in which one batch was started and not processed.
        """
        if not self._restarts_validation:
            return

        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
        restart = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        for span in ("total", "current"):
            progress[span].update(restart)
        progress["is_last_batch"] = False

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restore the previous handlers."""
        self._restore_handlers()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the previous handlers."""
        self._restore_handlers()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._received is not None:
            if time.monotonic() - self._received_at > _ECHO_SECONDS:
                os._exit(EXIT_CODES[name])
            return
        self._received = name
        self._received_at = time.monotonic()
        if self._agreement is not None and not self._agreement.is_first:
            return  # a signal to a launcher reaches all ranks
        message = (
            f"\n{name}: Saving after this batch, then exiting. Send the signal again to exit now.\n"
        )
        # Not logged, since this thread may be inside the logger. Ctrl-C may have closed the pipe.
        with contextlib.suppress(OSError):
            os.write(2, message.encode())

    def _save_and_exit(self, trainer: Trainer) -> None:
        for callback in _find_savers(trainer):
            callback.save_last(trainer)
        self._exit_if_agreed(trainer)

    def _has_agreed(self) -> bool:
        """Whether all ranks know of a signal to one of them."""
        assert self._agreement is not None
        if self._agreed is None:
            self._agreed = _name(self._agreement.exchange(_number(self._received)))
        return self._agreed is not None

    def _settle(self) -> None:
        """Agree on signals that arrived until now, at the end of an epoch."""
        assert self._agreement is not None
        if self._agreed is None:
            self._agreed = _name(self._agreement.settle(_number(self._received)))

    def _exit_if_agreed(self, trainer: Trainer) -> None:
        if self._agreed is None:
            return
        for callback in _find_savers(trainer):
            callback.finish_save(trainer)
        raise TrainingInterrupted(self._agreed)

    def _restore_handlers(self) -> None:
        for number, handler in self._previous_handlers.items():
            current_handler = signal.getsignal(number)
            if current_handler == self._on_signal:  # not replaced since
                signal.signal(number, handler)

        self._previous_handlers = {}
        self._restarts_validation = False


def _find_savers(trainer: Trainer) -> list[BestAndLastCheckpoint]:
    callbacks = trainer.checkpoint_callbacks
    return [each for each in callbacks if isinstance(each, BestAndLastCheckpoint)]


def _number(name: str | None) -> int:
    return 0 if name is None else _SIGNALS.index(name)


def _name(number: int) -> str | None:
    return _SIGNALS[number] or None
