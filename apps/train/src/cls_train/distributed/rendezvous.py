"""Let the ranks of one attempt find each other in a store that earlier attempts have used."""

import time
import uuid
from collections.abc import Sequence
from datetime import timedelta

from torch.distributed import DistError
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from cls_train.distributed.environment import ProcessRank
from cls_train.errors import RunFailedError

_POLL_SECONDS = 0.05


def open_store(process: ProcessRank, timeout: timedelta) -> Store:
    """Wait for all ranks, and return a store whose keys only the ranks of this attempt use.

    After a restart, the elastic launcher serves the keys of the attempt before, and the launchers
    of several machines count restarts differently (torch 2.15). So the first rank names the
    attempt, and tells each rank that has greeted it.

    Raises:
        RunFailedError: A rank did not come in time.
        DistError: The first rank came, and died.
    """
    handler = rendezvous("env://", process.rank, process.world_size, timeout=timeout)
    try:
        store, _, _ = next(handler)
    except DistError as error:
        raise RunFailedError(_describe_absence([0], process.world_size, timeout)) from error
    shared = PrefixStore("cls_train", store)
    if process.rank == 0:
        attempt = _welcome_ranks(shared, process.world_size, timeout)
    else:
        attempt = _greet_first_rank(shared, process.rank, timeout)
    return PrefixStore(f"cls_train/{attempt}", store)


def _greet_first_rank(store: Store, rank: int, timeout: timedelta) -> str:
    """Return the name of the attempt. A greeting of an earlier attempt has another token."""
    token = uuid.uuid4().hex
    store.set(f"greeting/{rank}", token)
    answer = f"answer/{token}"
    store.wait([answer], timeout)
    attempt: str = store.get(answer).decode()
    store.set(f"{attempt}/arrived/{rank}", "1")
    return attempt


def _welcome_ranks(store: Store, count: int, timeout: timedelta) -> str:
    """Name the attempt, and answer greetings until all ranks know the name."""
    attempt = uuid.uuid4().hex
    answered: dict[int, bytes] = {}
    missing = set(range(1, count))
    deadline = time.monotonic() + timeout.total_seconds()
    while missing:
        for rank in sorted(missing):
            if store.check([f"{attempt}/arrived/{rank}"]):
                missing.remove(rank)
            elif store.check([f"greeting/{rank}"]):
                token = store.get(f"greeting/{rank}")
                if answered.get(rank) != token:
                    store.set(f"answer/{token.decode()}", attempt)
                    answered[rank] = token
        if time.monotonic() > deadline:
            raise RunFailedError(_describe_absence(sorted(missing), count, timeout))
        time.sleep(_POLL_SECONDS)
    return attempt


def _describe_absence(missing: Sequence[int], count: int, timeout: timedelta) -> str:
    ranks = ", ".join(str(rank) for rank in missing)
    minutes = timeout.total_seconds() / 60
    return (
        f"of {count} processes, RANK {ranks} did not connect within {minutes:g} minutes; see their "
        "output, and check that all machines reach MASTER_ADDR and MASTER_PORT"
    )
