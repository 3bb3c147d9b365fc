"""Settings whose values depend on the number of devices."""

import os
import tempfile
from pathlib import Path

from loguru import logger

from cls_train.composition.config import RunConfig
from cls_train.distributed.ranks import Ranks
from cls_train.errors import ConfigError

ONE_DEVICE_CALLBACKS = {
    "FastestBatchSizeFinder": "measures the memory and speed of one device",
    "LRFinder": "trains on one device",
}
"""Callbacks that several devices cannot use, by class name, with the reason."""


def adapt_to_ranks(config: RunConfig, ranks: Ranks) -> RunConfig:
    """Return the configuration with the batch size over all devices, and with a shared store.

    Raises:
        ConfigError: A callback cannot be used on several devices.
    """
    data = dict(config.data)
    per_device = data.pop("batch_size_per_device", None)
    if isinstance(per_device, int):
        data["batch_size"] = per_device * ranks.count
    elif per_device is not None:
        data["batch_size_per_device"] = per_device  # refused with the others

    if ranks.count > 1:
        _check_callbacks(config)
        if data.get("store") is None:
            data["store"] = str(_shared_store())
            logger.info("data.store={}, so that the ranks share decoded images", data["store"])
    return config.model_copy(update={"data": data})


def _check_callbacks(config: RunConfig) -> None:
    for name, node in config.callbacks.items():
        target = str((node or {}).get("_target_")).rpartition(".")[2]
        if target in ONE_DEVICE_CALLBACKS:
            raise ConfigError(
                f"callbacks.{name}: {target} {ONE_DEVICE_CALLBACKS[target]}; run it with "
                "trainer.devices=1, then remove it"
            )


def _shared_store() -> Path:
    """Return a folder for the decoded images that the processes of this machine share.

    Network file systems are slow to map, and the temporary folder is usually local.
    """
    return Path(tempfile.gettempdir()) / f"cls-store-{os.getuid()}"
