"""Let the processes of a training decide together.

One that saves or exits alone would hang the others in their next collective operation.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, distributed
from torch.distributed import distributed_c10d

TIME_TO_CONNECT = timedelta(seconds=40)
"""How long ranks that all wait for each other may take to connect. If one of them has died, the
others notice it only by this timeout; once they are connected, they notice it at once."""

_STEP_TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for another one in a training step."""


def connect_ranks(
    ranks: Sequence[int] | None = None, *, timeout: timedelta = _STEP_TIMEOUT
) -> distributed.ProcessGroup | None:
    """Return a new group of Gloo, or None if this rank is no member. All ranks must call this.

    Args:
        ranks: Members of the group; all ranks by default.
        timeout: How long its operations wait for another rank.
    """
    distributed.barrier()  # only the slowest rank knows when the time to connect begins
    members = None if ranks is None else list(ranks)
    group = distributed.new_group(members, backend="gloo", timeout=TIME_TO_CONNECT)
    if not isinstance(group, distributed.ProcessGroup):
        return None
    set_timeout(timeout, group)
    return group


def set_timeout(timeout: timedelta, group: distributed.ProcessGroup | None = None) -> None:
    """Set how long operations of a group, or of the default one, wait for another rank."""
    # torch 2.14 and older have it only under a private name.
    old: Any = vars(distributed_c10d).get("_set_pg_timeout")
    new: Any = vars(distributed).get("set_timeout", old)
    new(timeout, group)


class RankAgreement:
    """Exchange small numbers and messages between the ranks of a training.

    With one process, every method returns what it was given. All ranks must call the methods in the
    same order. Uses its own group of Gloo, so that a GPU is never waited for.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._is_first = trainer.is_global_zero
        self._group: distributed.ProcessGroup | None = None
        if trainer.world_size > 1:
            self._group = connect_ranks()
        self._pending: tuple[distributed.Work, Tensor] | None = None

    def exchange(self, value: int) -> int:
        """Return the largest value that any rank gave to the previous call; 0 for the first call.

        The values travel during the batch in between, so a step is not delayed.
        """
        if self._group is None:
            return value
        previous = self._receive()
        largest = torch.tensor(value)
        work = distributed.all_reduce(
            largest, distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        assert work is not None
        self._pending = work, largest
        return previous

    def settle(self, value: int) -> int:
        """Return the largest value that any rank gives to this call or gave to the one before."""
        if self._group is None:
            return value
        return max(self.exchange(value), self._receive())

    def share_message(self, message: str | None) -> str | None:
        """Return the message of the first rank on all ranks."""
        if self._group is None:
            return message
        messages = [message]
        distributed.broadcast_object_list(messages, src=0, group=self._group)
        return messages[0]

    @property
    def is_first(self) -> bool:
        """Whether this is the first rank, which writes the files."""
        return self._is_first

    def _receive(self) -> int:
        if self._pending is None:
            return 0
        work, largest = self._pending
        self._pending = None
        work.wait()
        return int(largest)
