"""Run the app as one of several processes, so that each error is reported once."""

import sys
from collections.abc import Callable

import torch

from cls_export.contract.commands import EXIT_FAILED, EXIT_WRONG_INPUT
from cls_train.boundary import explained_errors
from cls_train.composition.config import Node, RunConfig
from cls_train.distributed.devices import count_devices, uses_processes
from cls_train.distributed.environment import ProcessRank, is_restarted_by_torchrun
from cls_train.distributed.ranks import Ranks, set_ranks
from cls_train.errors import ConfigError, RunFailedError


def run_as_rank(process: ProcessRank, config: RunConfig, run: Callable[[RunConfig], None]) -> None:
    """Connect to the other ranks, and run. Errors that all ranks raise are reported by the first.

    Raises:
        ConfigError, RunFailedError: See `run`, and `explained_errors`.
        SystemExit: The first rank reports the error, or the launcher does.
    """
    ranks = Ranks(process)
    set_ranks(ranks)
    try:
        check_process_rank(process, config)
    except ConfigError:
        if not ranks.is_first:  # all processes raise it
            sys.exit(EXIT_WRONG_INPUT)
        raise
    try:
        with explained_errors():
            ranks.connect(_find_device(process, config.trainer))
            run(config)
    except Exception as error:
        if not ranks.should_report(error):
            sys.exit(EXIT_WRONG_INPUT if isinstance(error, ConfigError) else EXIT_FAILED)
        is_expected = isinstance(error, (ConfigError, RunFailedError))
        if is_expected and not ranks.is_first:
            raise type(error)(f"process {process.rank}: {error}") from error
        raise


def check_process_rank(process: ProcessRank, config: RunConfig) -> None:
    """Check that the processes that were started fit the configuration.

    Raises:
        ConfigError: The message names the setting.
    """
    trainer = config.trainer
    if process.world_size > 1 and not uses_processes(trainer):
        raise ConfigError(
            f"{process.world_size} processes were started, but trainer.devices=1; set trainer=ddp "
            "to train one run on several devices"
        )
    devices = count_devices(trainer)
    is_set = devices not in (None, 1)  # 1 is the default
    if is_set and devices != process.local_world_size:
        raise ConfigError(
            f"trainer.devices={trainer['devices']}, but {process.local_world_size} process(es) "
            "were started on this machine; remove the setting, or start as many processes"
        )
    num_nodes = trainer.get("num_nodes", 1)
    if num_nodes not in (1, process.num_nodes):
        raise ConfigError(
            f"trainer.num_nodes={num_nodes}, but processes were started on {process.num_nodes} "
            "machine(s); remove the setting"
        )
    if is_restarted_by_torchrun() and config.run.name is None:
        raise ConfigError(
            "torchrun --max-restarts needs run.name: without it, a restart would begin a new run"
        )


def _find_device(process: ProcessRank, trainer: Node) -> torch.device:
    is_cpu = trainer.get("accelerator", "auto") == "cpu"
    if is_cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    devices = trainer.get("devices")
    index = devices[process.local_rank] if isinstance(devices, list) else process.local_rank
    existing = torch.cuda.device_count()
    if index >= existing:
        raise ConfigError(
            f"process {process.rank} needs GPU {index}, but PyTorch sees {existing}; start one "
            "process for each GPU"
        )
    return torch.device("cuda", index)
