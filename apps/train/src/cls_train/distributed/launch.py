"""Start one process for each device of this machine, with PyTorch's elastic launcher (torchrun)."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from cls_train.composition.config import Node
from cls_train.distributed.devices import count_devices
from cls_train.distributed.environment import LAUNCHER, SHARES_CORES, THREADS
from cls_train.errors import ConfigError, RunFailedError

SECONDS_TO_SAVE = 45
"""How long processes may take to save and exit after a signal, before they are killed."""

_SIGNAL_CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129, "SIGQUIT": 131, "SIGUSR1": 143}
"""Signals that the launcher passes on, with the exit code of each."""


def choose_num_processes(flags: Node) -> int:
    """Return the number of processes for the devices of this machine.

    Raises:
        ConfigError: There are fewer devices, or the number must be given.
    """
    import torch

    wanted = count_devices(flags)
    accelerator = flags.get("accelerator", "auto")
    has_gpus = torch.cuda.is_available()
    if accelerator == "cpu" or (accelerator == "auto" and not has_gpus):
        if wanted is None:
            raise ConfigError(
                "trainer.devices: auto means all GPUs; on a CPU, set the number of processes, such "
                "as trainer.devices=2"
            )
        if isinstance(flags["devices"], list):
            raise ConfigError(
                f"trainer.devices: a list, such as {flags['devices']}, names GPUs; on a CPU, set "
                f"trainer.devices={wanted}"
            )
        return wanted
    if accelerator == "mps":
        raise ConfigError("trainer.devices: several devices need CUDA or a CPU, not mps")
    if not has_gpus:
        raise ConfigError(
            "trainer.accelerator: PyTorch sees no GPU; set trainer.accelerator=cpu and "
            "trainer.devices=2, or check nvidia-smi and CUDA_VISIBLE_DEVICES"
        )
    existing = torch.cuda.device_count()
    if wanted is None:
        return existing
    devices = flags["devices"]
    indices = devices if isinstance(devices, list) else range(wanted)
    if max(indices) >= existing:
        raise ConfigError(
            f"trainer.devices: {flags['devices']} was asked for, but PyTorch sees {existing} "
            "GPU(s); check nvidia-smi and CUDA_VISIBLE_DEVICES"
        )
    return wanted


def launch_app(config_dir: Path, arguments: Sequence[str], num_processes: int) -> int:
    """Run the app in several processes, and return its exit code.

    Args:
        config_dir: Folder of the configuration.
        arguments: Command line of the app.
        num_processes: Processes to start, all on this machine.

    Raises:
        RunFailedError: A process was killed.
    """
    # -P: with -m alone, a statistics.py in the working directory would replace Python's.
    module = ["-u", "-P", "-m", "cls_train.distributed.rank_main"]
    return launch([*module, str(config_dir), *arguments], num_processes)


def launch(command: Sequence[str], num_processes: int) -> int:
    """Run Python in several processes, and return the exit code of the first that failed, or 0.

    A process that dies ends the others. Signals are passed on to all processes.

    Args:
        command: Arguments of Python.
        num_processes: Processes to start, all on this machine.

    Raises:
        RunFailedError: A process was killed.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _silence_launcher()
    if THREADS not in os.environ:
        cores_per_process = (os.cpu_count() or 1) // num_processes
        os.environ[THREADS] = str(max(1, cores_per_process))
        os.environ[SHARES_CORES] = "1"
    os.environ[LAUNCHER] = str(os.getpid())
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SECONDS_TO_SAVE))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        signals_to_handle=",".join(_SIGNAL_CODES),
    )
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        return _explain_exit(rank, failure.exitcode)
    except SignalException as error:
        return _SIGNAL_CODES.get(signal.Signals(error.sigval).name, 1)
    return 0


def _silence_launcher() -> None:
    """Hide the launcher's log: the processes report their errors themselves."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _explain_exit(rank: int, code: int) -> int:
    """Return the exit code of a process; one that was killed could not explain itself."""
    if code >= 0:
        return code
    cause = "often because the machine is out of memory" if code == -9 else "a crash"
    raise RunFailedError(
        f"process {rank} was killed by signal {-code} ({cause}), and the others were stopped. "
        "Repeat the command with the run's name to resume from its last checkpoint"
    )
