"""How many processes a run needs, from the trainer's settings, without PyTorch."""

from collections.abc import Mapping, Sequence
from typing import Any

from cls_train.errors import ConfigError

DDP = "ddp"


def uses_processes(flags: Mapping[str, Any]) -> bool:
    """Whether a run is to be trained by one process for each of its devices.

    `trainer=ddp` always asks for it, although there may be only one device.
    """
    if flags.get("strategy") == DDP or flags.get("num_nodes", 1) > 1:
        return True
    count = count_devices(flags)
    return count is not None and count > 1


def count_devices(flags: Mapping[str, Any]) -> int | None:
    """Return the devices of one machine; None for `auto`: all of them."""
    devices: Any = flags.get("devices", "auto")
    if isinstance(devices, list):
        return len(devices)
    return None if devices == "auto" else int(devices)


def check_batch_size_keys(overrides: Sequence[str]) -> None:
    """Refuse a command line that sets the batch size in two ways.

    Raises:
        ConfigError: `data.batch_size` and `data.batch_size_per_device` are both set.
    """
    keys = {override.lstrip("+").partition("=")[0] for override in overrides}
    if {"data.batch_size", "data.batch_size_per_device"} <= keys:
        raise ConfigError(
            "data.batch_size is the number of images per step over all devices, and "
            "data.batch_size_per_device that of one device; set one of them"
        )
