"""A callback that lets one rank of a run fail, for tests."""

import errno
import os
import signal
import time
from typing import Any

from lightning.pytorch import Callback, Trainer

SIGNALS = {
    "SIGINT": signal.SIGINT,
    "SIGKILL": signal.SIGKILL,
    "SIGTERM": signal.SIGTERM,
    "SIGUSR1": signal.SIGUSR1,
}
HOOKS = (
    "setup",
    "on_fit_start",
    "on_train_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_validation_batch_start",
    "on_validation_end",
    "on_train_epoch_end",
    "on_save_checkpoint",
    "on_train_end",
    "on_fit_end",
)


class RankFault(Callback):
    """Send a signal to one rank, or raise an error in it, when it gets to a hook.

    Args:
        hook: One of `HOOKS`.
        rank: The rank that fails.
        fault: One of `SIGNALS`, or `full disk` or `error`.
        max_ranks: Nothing fails in a run of more ranks.
    """

    def __init__(self, hook: str, rank: int, fault: str, max_ranks: int = 2) -> None:
        self.hook = hook
        self.rank = rank
        self.fault = fault
        self.max_ranks = max_ranks

    def fail(self, trainer: Trainer) -> None:
        """Fail, if this is the rank."""
        if trainer.global_rank != self.rank or trainer.world_size > self.max_ranks:
            return
        if self.fault == "error":
            raise ValueError("the fault of a test")
        if self.fault == "full disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/file")
        os.kill(os.getpid(), SIGNALS[self.fault])
        time.sleep(0.05)


def _make_hook(name: str) -> Any:
    def hook(self: RankFault, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if self.hook == name:
            self.fail(trainer)

    return hook


for _name in HOOKS:
    setattr(RankFault, _name, _make_hook(_name))
