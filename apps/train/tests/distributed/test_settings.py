"""Settings that depend on the number of devices."""

from typing import Any

import pytest

from cls_train.distributed.devices import check_batch_size_keys, count_devices, uses_processes
from cls_train.distributed.environment import ProcessRank
from cls_train.distributed.rank_process import check_process_rank
from cls_train.distributed.ranks import Ranks
from cls_train.distributed.settings import adapt_to_ranks
from cls_train.errors import ConfigError

FOUR_RANKS = Ranks(ProcessRank(rank=0, world_size=4, local_rank=0, local_world_size=4))


@pytest.mark.parametrize(
    ("flags", "expected", "count"),
    [
        ({}, False, None),
        ({"devices": 1}, False, 1),
        ({"devices": "1"}, False, 1),
        ({"devices": [3]}, False, 1),
        ({"devices": "auto"}, False, None),
        ({"devices": 2}, True, 2),
        ({"devices": [0, 3]}, True, 2),
        ({"devices": 1, "strategy": "ddp"}, True, 1),
        ({"devices": 1, "num_nodes": 2}, True, 1),
    ],
)
def test_several_devices_use_several_processes(
    flags: dict[str, Any], expected: bool, count: int | None
) -> None:
    assert uses_processes(flags) == expected
    assert count_devices(flags) == count


def test_the_batch_size_over_all_devices_is_recorded(composed: Any) -> None:
    config = adapt_to_ranks(composed("data.batch_size_per_device=16"), FOUR_RANKS)
    assert config.data["batch_size"] == 64
    assert "batch_size_per_device" not in config.data
    alone = adapt_to_ranks(composed("data.batch_size_per_device=16"), Ranks())
    assert alone.data["batch_size"] == 16


def test_ranks_share_a_store_unless_one_is_set(composed: Any) -> None:
    config = adapt_to_ranks(composed(), FOUR_RANKS)
    assert config.data["store"]
    own = adapt_to_ranks(composed("data.store=mine"), FOUR_RANKS)
    assert own.data["store"].endswith("/mine")
    assert adapt_to_ranks(composed(), Ranks()).data.get("store") is None


def test_two_batch_sizes_on_one_command_line_are_refused() -> None:
    check_batch_size_keys(["data.batch_size=64", "seed=2"])
    with pytest.raises(ConfigError, match="set one of them"):
        check_batch_size_keys(["data.batch_size=64", "+data.batch_size_per_device=16"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "4 processes were started, but trainer.devices=1; set trainer=ddp"),
        (["trainer.devices=2"], "trainer.devices=2, but 4 process"),
        (["trainer.strategy=ddp", "trainer.num_nodes=2"], "on 1 machine"),
    ],
)
def test_processes_that_do_not_fit_the_settings_are_refused(
    composed: Any, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_process_rank(FOUR_RANKS.process, composed(*overrides))


@pytest.mark.parametrize("overrides", [["trainer=ddp"], ["trainer.devices=4"]])
def test_processes_that_fit_the_settings_are_accepted(composed: Any, overrides: list[str]) -> None:
    check_process_rank(FOUR_RANKS.process, composed(*overrides))
