"""Let the processes of a training decide together.

One that saves or exits alone would hang the others in their next collective operation.
"""

import torch
from lightning.pytorch import Trainer
from torch import Tensor, distributed


class RankAgreement:
    """Exchange small numbers and messages between the ranks of a training.

    With one process, every method returns what it was given. All ranks must call the methods in the
    same order. Uses its own group of Gloo, so that a GPU is never waited for.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._is_first = trainer.is_global_zero
        self._group: distributed.ProcessGroup | None = None
        if trainer.world_size > 1:
            group = distributed.new_group(backend="gloo")
            assert isinstance(group, distributed.ProcessGroup)
            self._group = group
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
