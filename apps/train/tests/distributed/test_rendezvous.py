"""How the ranks of one attempt find each other."""

import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from cls_train.distributed.environment import ProcessRank
from cls_train.distributed.rendezvous import _greet_first_rank, _welcome_ranks, open_store
from cls_train.errors import RunFailedError

TIMEOUT = timedelta(seconds=20)


def find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def meet(store: HashStore, count: int) -> set[str]:
    """Return the names of the attempt that the ranks have received."""
    with ThreadPoolExecutor(count) as threads:
        others = [
            threads.submit(_greet_first_rank, store, rank, TIMEOUT) for rank in range(1, count)
        ]
        first = threads.submit(_welcome_ranks, store, count, TIMEOUT)
        return {name.result() for name in [first, *others]}


@pytest.mark.parametrize("count", [2, 5])
def test_ranks_agree_on_a_new_name_although_a_store_has_keys_of_earlier_attempts(
    count: int,
) -> None:
    store = HashStore()
    attempts = [meet(store, count) for _ in range(3)]
    assert [len(names) for names in attempts] == [1, 1, 1]
    assert len(set.union(*attempts)) == 3


def test_a_rank_that_died_after_its_greeting_is_not_taken_for_the_next_one() -> None:
    store = HashStore()
    store.set("greeting/1", "token of a rank that died")
    assert len(meet(store, 2)) == 1


def test_a_rank_that_does_not_come_is_an_error() -> None:
    with pytest.raises(RunFailedError, match="of 3 processes, RANK 1, 2 did not connect"):
        _welcome_ranks(HashStore(), 3, timedelta(seconds=0))


def test_a_first_rank_that_does_not_come_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(find_free_port()))
    process = ProcessRank(rank=1, world_size=2, local_rank=1, local_world_size=2)
    with pytest.raises(RunFailedError, match="of 2 processes, RANK 0 did not connect"):
        open_store(process, timedelta(seconds=1))
