"""Write one checkpoint to best.ckpt, last.ckpt, or both, in this thread or in another one.

Lightning's own `AsyncCheckpointIO` does not fit here (lightning 2.6.6). It copies tensors on the
GPU, queues any number of copies, and reports an error only to the rank that writes, after the next
checkpoint is queued. It also cannot rename files after it has written one.
"""

import itertools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lightning.fabric.plugins import CheckpointIO

from cls_callbacks.checkpointing.atomic_io import CheckpointNotSavedError
from cls_callbacks.checkpointing.checkpoint_files import (
    duplicate_checkpoint,
    remove_checkpoint,
    rename_checkpoint,
)
from cls_export.contract.run_layout import RunPaths

SavedFile = Literal["best", "last", "epoch"]

_EPOCH_FILE = "epoch_{:05d}.ckpt"
_EPOCH_GLOB = "epoch_*.ckpt"


@dataclass(frozen=True, slots=True)
class SavePlan:
    """What one save writes.

    Attributes:
        run: Paths of the run.
        step: Optimizer steps of the checkpoint.
        files: What is written, in this order.
        epoch: Number of the epoch for `epoch`, counted from 1.
        keep_epochs: How many checkpoints of epochs are kept.
        max_bytes: Their largest total size; the latest is never deleted.
        stops_at_error: Whether the first error prevents the files after it.
        state_key: Key of the callback whose state has `best_score`.
        older_best_score: The value for last.ckpt if best.ckpt cannot be written.
    """

    run: RunPaths
    step: int
    files: tuple[SavedFile, ...]
    epoch: int = 0
    keep_epochs: float = math.inf
    max_bytes: float = math.inf
    stops_at_error: bool = True
    state_key: str = ""
    older_best_score: float | None = None


class SaveJob:
    """One save. Create it on all ranks, and run it on the first one.

    Args:
        plan: What to write.

    Attributes:
        saved: The files that were written.
        errors: The error of each file that could not be written.
        failure: Any other error of the thread.
        is_reported: Whether the caller has reported this save.
    """

    def __init__(self, plan: SavePlan) -> None:
        self.plan = plan
        self.saved: list[SavedFile] = []
        self.errors: dict[SavedFile, OSError] = {}
        self.failure: BaseException | None = None
        self.is_reported = False
        self._thread: threading.Thread | None = None

    @property
    def is_done(self) -> bool:
        """Whether nothing is being written anymore."""
        return self._thread is None or not self._thread.is_alive()

    @property
    def has_saved(self) -> bool:
        """Whether last.ckpt was written, or best.ckpt if only that one is planned."""
        wanted: SavedFile = "last" if "last" in self.plan.files else "best"
        return self.is_done and wanted in self.saved

    def fail(self, error: OSError) -> None:
        """Record that there is no checkpoint to write."""
        for name in self.plan.files:
            if name != "epoch":
                self.errors[name] = error

    def start(self, load: Callable[[], dict[str, Any]], checkpoint_io: CheckpointIO) -> None:
        """Load a checkpoint and call `run` in a new thread."""

        def run() -> None:
            try:
                self.run(load(), checkpoint_io)
            except BaseException as failure:  # the training raises it
                self.failure = failure

        self._thread = threading.Thread(target=run, name="checkpoint writer")
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is being written anymore."""
        if self._thread is not None:
            self._thread.join()

    def run(self, checkpoint: dict[str, Any], checkpoint_io: CheckpointIO) -> None:
        """Write the files of a checkpoint, and collect their errors."""
        for name in self.plan.files:
            if self.errors and self.plan.stops_at_error:
                return
            if name == "epoch" and "last" in self.errors:
                return
            try:
                self._check_folder_exists()
                self._save(name, checkpoint, checkpoint_io)
                self.saved.append(name)
            except OSError as error:
                self.errors[name] = error
            if "best" in self.errors:
                state = checkpoint["callbacks"][self.plan.state_key]
                state["best_score"] = self.plan.older_best_score

    def _save(
        self, name: SavedFile, checkpoint: dict[str, Any], checkpoint_io: CheckpointIO
    ) -> None:
        run = self.plan.run
        if name == "best":
            checkpoint_io.save_checkpoint(checkpoint, run.best)
        elif name == "epoch":
            self._keep_epoch()
        else:
            # The new file is complete before the older ones move: last.ckpt may be damaged, and
            # the disk full.
            if "best" in self.plan.files and "best" not in self.errors:
                duplicate_checkpoint(run.best, run.next)
            else:
                checkpoint_io.save_checkpoint(checkpoint, run.next)
            self._move_next_to_last()

    def _move_next_to_last(self) -> None:
        run = self.plan.run
        if run.last.exists():
            rename_checkpoint(run.last, run.previous)
        rename_checkpoint(run.next, run.last)

    def _keep_epoch(self) -> None:
        run = self.plan.run
        epoch_file = _EPOCH_FILE.format(self.plan.epoch)
        duplicate_checkpoint(run.last, run.checkpoints / epoch_file)

        newest_first = sorted(run.checkpoints.glob(_EPOCH_GLOB), reverse=True)
        sizes = [path.stat().st_size for path in newest_first]
        total_sizes = list(itertools.accumulate(sizes))

        for index in range(1, len(newest_first)):
            if index >= self.plan.keep_epochs or total_sizes[index] > self.plan.max_bytes:
                remove_checkpoint(newest_first[index])

    def _check_folder_exists(self) -> None:
        """Raise an error if the folder was deleted.

        Saving would create it again, without the other files of the run.
        """
        folder = self.plan.run.checkpoints
        if not folder.is_dir():
            raise CheckpointNotSavedError(f"{folder} was deleted; no checkpoint was saved")
