"""Which of several processes this one is."""

import os
from typing import Any

import pytest

from cls_train.distributed.environment import (
    SHARES_CORES,
    ProcessRank,
    read_process_rank,
    reported_once,
    standalone_environment,
)
from cls_train.errors import ConfigError

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SRUN = {
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_NTASKS": "8",
    "SLURM_JOB_NAME": "train",
    "SLURM_NODELIST": "gpu[3-4]",
}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in list(os.environ):
        prefixes = ("SLURM_", "RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "OMP_", "CLS_TRAIN_")
        if name.startswith(prefixes):
            del os.environ[name]


def test_a_process_on_its_own_has_no_place() -> None:
    assert read_process_rank() is None


def test_torchrun_states_the_place() -> None:
    os.environ.update(TORCHRUN)
    assert read_process_rank() == ProcessRank(
        rank=5, world_size=8, local_rank=1, local_world_size=4
    )


def test_srun_states_the_place_and_the_address_of_the_first_machine() -> None:
    os.environ.update(SRUN)
    assert read_process_rank() == ProcessRank(
        rank=5, world_size=8, local_rank=1, local_world_size=4
    )
    assert os.environ["MASTER_ADDR"] == "gpu3"
    assert int(os.environ["MASTER_PORT"]) > 1024
    assert os.environ["GROUP_RANK"] == "1"


@pytest.mark.parametrize(
    "changes", [{"SLURM_STEP_ID": None}, {"SLURM_STEP_NUM_TASKS": "1"}], ids=["batch", "one task"]
)
def test_a_batch_script_and_a_single_task_have_no_place(changes: dict[str, Any]) -> None:
    os.environ.update(SRUN)
    for name, value in changes.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    assert read_process_rank() is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LOCAL_RANK": "first"}, "LOCAL_RANK is 'first'"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE is '-1'"),
        ({"LOCAL_WORLD_SIZE": "3"}, "not a multiple of LOCAL_WORLD_SIZE=3"),
    ],
)
def test_wrong_variables_are_named(changes: dict[str, str], message: str) -> None:
    os.environ.update(TORCHRUN | changes)
    with pytest.raises(ConfigError, match=message):
        read_process_rank()


def test_child_processes_are_on_their_own() -> None:
    os.environ.update(TORCHRUN, TORCHELASTIC_RUN_ID="7", MASTER_ADDR="gpu3", PATH_TO_DATA="x")
    with standalone_environment():
        assert read_process_rank() is None
        assert "TORCHELASTIC_RUN_ID" not in os.environ
        assert os.environ["PATH_TO_DATA"] == "x"
    assert read_process_rank() is not None


@pytest.mark.parametrize(("is_ours", "threads"), [(True, None), (False, "4")])
def test_child_processes_use_all_cores_unless_the_user_limits_them(
    is_ours: bool, threads: str | None
) -> None:
    os.environ.update(TORCHRUN, OMP_NUM_THREADS="4")
    if is_ours:
        os.environ[SHARES_CORES] = "1"
    with standalone_environment():
        assert os.environ.get("OMP_NUM_THREADS") == threads
    assert os.environ["OMP_NUM_THREADS"] == "4"


@pytest.mark.parametrize(
    ("environment", "is_reported"),
    [
        ({}, True),
        (TORCHRUN, False),
        (TORCHRUN | {"LOCAL_RANK": "0"}, True),
        (SRUN, False),
        (SRUN | {"SLURM_LOCALID": "0"}, True),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1"}, True),
    ],
)
def test_wrong_input_is_reported_by_one_process_of_each_machine(
    environment: dict[str, str], is_reported: bool
) -> None:
    os.environ.update(environment)
    expected: type[BaseException] = ConfigError if is_reported else SystemExit
    with pytest.raises(expected), reported_once():
        raise ConfigError("wrong")
