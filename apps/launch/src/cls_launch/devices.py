"""Compare the devices of a trainer with those of its job."""

from collections.abc import Mapping
from typing import Any

from cls_launch.errors import LaunchError
from cls_launch.targets.target import Resources

_ALL = (None, "auto", -1)
_GPU_ACCELERATORS = ("gpu", "cuda")


def check_devices(trainer: Mapping[str, Any], resources: Resources) -> None:
    """Check that a run uses exactly the GPUs that its job pays for.

    Args:
        trainer: The settings of the trainer.
        resources: What the job has.

    Raises:
        LaunchError: It uses more or fewer, or several machines.
    """
    accelerator, gpus = trainer.get("accelerator", "auto"), resources.gpus
    if (trainer.get("num_nodes") or 1) > 1:
        raise LaunchError(
            f"trainer.num_nodes={trainer['num_nodes']}: a job runs on one machine; remove it, or "
            "submit a script of your own (see docs/clusters.md)"
        )
    if gpus and accelerator == "cpu":
        raise LaunchError(
            f"trainer.accelerator is cpu, and the job has GPUs (resources.gpus={gpus}); set "
            "trainer=gpu after --, or resources.gpus=0 before it"
        )
    if not gpus and accelerator in _GPU_ACCELERATORS:
        raise LaunchError(
            f"trainer.accelerator is {accelerator}, and the job has no GPU (resources.gpus=0); set "
            "trainer=cpu after --, or resources.gpus=1 before it"
        )
    if gpus:
        _check_count(trainer.get("devices", "auto"), gpus)


def _check_count(devices: Any, gpus: int) -> None:
    if devices in _ALL:
        return
    is_list = isinstance(devices, list)
    used = len(devices) if is_list else int(devices)
    is_missing = is_list and any(index >= gpus for index in devices)
    if used == gpus and not is_missing:
        return
    wanted = max(devices) + 1 if is_missing else used
    all_gpus = "trainer=ddp" if gpus > 1 else "trainer.devices=1"
    raise LaunchError(
        f"trainer.devices={devices} uses other GPUs than the {gpus} of the job "
        f"(resources.gpus={gpus}); set resources.gpus={wanted} before --, or {all_gpus} after it"
    )
