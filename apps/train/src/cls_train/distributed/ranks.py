"""Run work on the first rank of a run or a machine, and share its result or error with all ranks.

A run in one process has one rank, which is the first; nothing is exchanged then.
"""

import contextlib
import hashlib
import pickle
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.distributed_c10d import Store

from cls_callbacks import TIME_TO_CONNECT, CheckpointNotSavedError, connect_ranks, set_timeout
from cls_models import NonfiniteLossError
from cls_train.distributed.environment import ProcessRank
from cls_train.distributed.rendezvous import open_store
from cls_train.errors import RunFailedError

Result = TypeVar("Result")

_WAIT = timedelta(days=1)
"""How long ranks wait while one checks and decodes the data. If it dies, the launcher stops all."""

_START_TIMEOUT = timedelta(minutes=15)
"""How long a rank waits until all have started, as long as PyTorch's elastic launcher."""

_STEP_TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for another one in a training step."""

_SECONDS_FOR_FIRST_RANK = 1.0
"""How long another rank waits for the first one to report an error that both have raised."""

_RAISED_BY_ALL = (CheckpointNotSavedError, NonfiniteLossError)
"""Errors of training that all ranks raise together."""


class LostRankError(RunFailedError):
    """Another process of the run has ended."""


class Ranks:
    """The ranks of a run.

    Attributes:
        process: Which of them this process is.
    """

    def __init__(self, process: ProcessRank | None = None) -> None:
        self.process = process or ProcessRank(0, 1, 0, 1)
        self._is_connected = False
        self._store: Store | None = None
        self._all: Any = None
        self._node: Any = None
        self._shared_errors: list[BaseException] = []

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.process.rank == 0

    @property
    def is_first_of_node(self) -> bool:
        """Whether this process prepares the data of its machine."""
        return self.process.local_rank == 0

    @property
    def count(self) -> int:
        """Number of ranks."""
        return self.process.world_size

    def connect(self, device: torch.device) -> None:
        """Wait for all ranks, and connect them. Does nothing for a run in one process."""
        if self.count == 1:
            return
        try:
            self._connect(device)
        except distributed.DistError as error:
            raise LostRankError(describe_lost_rank(self.process.rank)) from error
        self._is_connected = True

    def _connect(self, device: torch.device) -> None:
        self._store = open_store(self.process, _START_TIMEOUT)
        arguments: dict[str, Any] = {
            "store": self._store,
            "rank": self.process.rank,
            "world_size": self.count,
        }
        if device.type == "cuda":
            torch.cuda.set_device(device)
            arguments["timeout"] = _STEP_TIMEOUT
            distributed.init_process_group("nccl", device_id=device, **arguments)
        else:
            distributed.init_process_group("gloo", timeout=TIME_TO_CONNECT, **arguments)
            set_timeout(_STEP_TIMEOUT)
        self._all = connect_ranks(timeout=_WAIT)
        size = self.process.local_world_size
        for first in range(0, self.count, size):  # all ranks must create all groups
            node = connect_ranks(range(first, first + size), timeout=_WAIT)
            if node is not None:
                self._node = node

    def disconnect(self) -> None:
        """Wait for all ranks, then end the connection."""
        if not self._is_connected:
            return
        self._call(lambda: distributed.barrier(group=self._all))
        self._is_connected = False
        distributed.destroy_process_group()

    def on_first(self, work: Callable[[], Result]) -> Result:
        """Return the result of the first rank, or raise its error, on all ranks."""
        return self._share(work, self._all, 0) if self._is_connected else work()

    def on_first_of_node(self, work: Callable[[], Result]) -> Result:
        """Return the result of the first rank of this machine, or raise an error of any machine."""
        if not self._is_connected:
            return work()
        first = self.process.rank - self.process.local_rank
        try:
            result = self._share(work, self._node, first)
        except Exception as error:
            self._raise_first_error(error)
            raise
        self._raise_first_error(None)
        return result

    def should_report(self, error: Exception) -> bool:
        """Whether this rank reports an error, which others may have raised too."""
        if not self.is_first and self._is_reported_by_first(error):
            return False
        if self._store is None:
            return True
        if not self.is_first:
            time.sleep(_SECONDS_FOR_FIRST_RANK)
        digest = hashlib.sha256(str(error).encode()).hexdigest()
        try:
            return bool(self._store.add(f"reported/{digest}", 1) == 1)
        except RuntimeError:  # the first rank, which holds the store, has ended
            return self.is_first

    def _is_reported_by_first(self, error: BaseException | None) -> bool:
        while error is not None:
            if error in self._shared_errors or isinstance(error, (*_RAISED_BY_ALL, LostRankError)):
                return True
            error = error.__cause__
        return False

    def _share(self, work: Callable[[], Result], group: Any, source: int) -> Result:
        message: tuple[bool, Any] = False, None
        if self.process.rank == source:
            try:
                message = True, work()
            except Exception as error:
                message = False, error
        is_result, value = self._broadcast(message, group, source)
        if is_result:
            result: Result = value
            return result
        self._shared_errors.append(value)
        raise value

    def _raise_first_error(self, error: Exception | None) -> None:
        """Raise the error of the first rank that has one, on all ranks."""
        errors: list[Any] = [None] * self.count
        self._call(lambda: distributed.all_gather_object(errors, _pack(error), group=self._all))
        for packed in errors:
            if packed is not None:
                shared = _unpack(packed)
                self._shared_errors.append(shared)
                raise shared

    def _broadcast(self, message: tuple[bool, Any], group: Any, source: int) -> tuple[bool, Any]:
        is_result, value = message
        content: list[Any] = [is_result, value if is_result else _pack(value)]
        self._call(lambda: distributed.broadcast_object_list(content, src=source, group=group))
        if self.process.rank == source:
            return message
        is_result, value = content
        return is_result, value if is_result else _unpack(value)

    def _call(self, communicate: Callable[[], Any]) -> None:
        try:
            communicate()
        except RuntimeError as error:
            raise LostRankError(describe_lost_rank(self.process.rank)) from error


def _pack(error: Exception | None) -> bytes | None:
    """Pickle an error with its cause, on which the exit code depends."""
    if error is None:
        return None
    for content in ((error, error.__cause__), (error, None)):
        with contextlib.suppress(Exception):
            packed = pickle.dumps(content)
            pickle.loads(packed)  # fails for errors whose constructor takes other arguments
            return packed
    return pickle.dumps((RuntimeError(f"{type(error).__name__}: {error}"), None))


def _unpack(packed: bytes) -> Exception:
    error: Exception
    error, error.__cause__ = pickle.loads(packed)
    return error


def describe_lost_rank(rank: int) -> str:
    """Return the message of a rank whose connection to another one has ended."""
    return (
        f"process {rank} lost its connection to another process of the run, whose own message or "
        "exit code says why; repeat the command with the run's name to resume"
    )


def is_lost_connection(error: BaseException) -> bool:
    """Whether PyTorch raised an error because another rank has ended."""
    if isinstance(error, distributed.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("gloo" in text or "Connection" in text)


_current = Ranks()


def get_ranks() -> Ranks:
    """Return the ranks of this process."""
    return _current


def set_ranks(ranks: Ranks) -> None:
    """Set the ranks of this process, before its run starts."""
    global _current
    _current = ranks
