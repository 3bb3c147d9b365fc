"""Rank of this process, from the environment variables of torchrun or SLURM."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cls_export.contract.commands import EXIT_FAILED, EXIT_WRONG_INPUT
from cls_train.errors import ConfigError
from cls_train.process import end_with_parent

THREADS = "OMP_NUM_THREADS"
SHARES_CORES = "CLS_TRAIN_SHARES_CORES"
"""Set by the app when it gives each process its share of the cores in `THREADS`."""

LAUNCHER = "CLS_TRAIN_LAUNCHER"
"""Set by the app to its process number when it starts one process for each device."""

_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
"""Variables that torchrun sets. PyTorch and Lightning read them."""

_FIRST_PORT = 15_000
_NUM_PORTS = 10_000
"""Jobs that share a machine get different ports from their numbers."""

_PREFIXES = ("TORCHELASTIC_", "GROUP_", "ROLE_")


@dataclass(frozen=True, slots=True)
class ProcessRank:
    """Rank of a process, from 0, among all processes of a run and among those of its machine."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int

    @property
    def num_nodes(self) -> int:
        """Number of machines."""
        return self.world_size // self.local_world_size


def read_process_rank() -> ProcessRank | None:
    """Return the rank of this process; None if it was started on its own.

    Under `srun`, first set the variables that torchrun would set.

    Raises:
        ConfigError: A variable is missing, or is not a number.
    """
    if "RANK" not in os.environ and _is_in_slurm_step():
        _adopt_slurm_variables()
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None

    world_size = _read("WORLD_SIZE")
    process = ProcessRank(
        rank=_read("RANK"),
        world_size=world_size,
        local_rank=_read("LOCAL_RANK"),
        local_world_size=_read("LOCAL_WORLD_SIZE", default=world_size),
    )
    if process.world_size % process.local_world_size != 0:
        raise ConfigError(
            f"WORLD_SIZE={world_size} is not a multiple of LOCAL_WORLD_SIZE="
            f"{process.local_world_size}; start equally many processes on every machine"
        )
    return process


def is_first_of_machine() -> bool:
    """Whether this is the first process of its machine, or was started on its own."""
    if "RANK" in os.environ:
        return os.environ.get("LOCAL_RANK", "0") == "0"
    return not _is_in_slurm_step() or os.environ.get("SLURM_LOCALID", "0") == "0"


def prepare_rank() -> None:
    """Prepare one of several processes, before PyTorch is imported.

    When its launcher dies, it ends: alone, it would wait for the others. PyTorch does not write
    stack traces in C++ when a connection ends; the app says so.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    end_with_parent()
    launcher = os.environ.get(LAUNCHER)
    if launcher is not None and int(launcher) != os.getppid():  # it has died already
        os._exit(EXIT_FAILED)


@contextmanager
def reported_once() -> Iterator[None]:
    """Let the first process of each machine report wrong input, before the processes are connected.

    All of them have the same command line and files, so the others raise the same error.

    Raises:
        SystemExit: In place of a `ConfigError` in the other processes.
    """
    try:
        yield
    except ConfigError:
        if is_first_of_machine():
            raise
        sys.exit(EXIT_WRONG_INPUT)


def is_restarted_by_torchrun() -> bool:
    """Whether torchrun restarts the processes after a failure (`torchrun --max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


@contextmanager
def standalone_environment() -> Iterator[None]:
    """Hide the variables of torchrun, so that child processes are alone and use all cores."""
    hidden = {}
    variables = (*_VARIABLES, THREADS) if SHARES_CORES in os.environ else _VARIABLES
    for name in list(os.environ):
        if name in variables or name.startswith(_PREFIXES):
            hidden[name] = os.environ.pop(name)
    try:
        yield
    finally:
        os.environ.update(hidden)


def _is_in_slurm_step() -> bool:
    """Whether `srun` started this process and others; a batch script is not one of them."""
    num_tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    is_step = "SLURM_STEP_ID" in os.environ and "SLURM_PROCID" in os.environ
    return is_step and num_tasks.isdigit() and int(num_tasks) > 1


def _adopt_slurm_variables() -> None:
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "localhost")
    world_size = _read("SLURM_STEP_NUM_TASKS")
    num_nodes = _read("SLURM_STEP_NUM_NODES", default=1)
    variables = {
        "MASTER_ADDR": SLURMEnvironment.resolve_root_node_address(nodes),
        "MASTER_PORT": _FIRST_PORT + _read("SLURM_JOB_ID") % _NUM_PORTS,
        "WORLD_SIZE": world_size,
        "RANK": _read("SLURM_PROCID"),
        "LOCAL_RANK": _read("SLURM_LOCALID"),
        "LOCAL_WORLD_SIZE": world_size // num_nodes,
        "GROUP_RANK": _read("SLURM_NODEID", default=0),
    }
    for name, value in variables.items():
        os.environ[name] = str(value)


def _read(name: str, default: int | None = None) -> int:
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isdigit():
        raise ConfigError(
            f"the environment variable {name} is {text!r}, expected a number; start the processes "
            "with torchrun or srun, or unset RANK and WORLD_SIZE"
        )
    return int(text)
