"""Try out the optimizer, schedule, loss, transfer, and image sizes before training starts."""

from collections.abc import Callable
from typing import Any

import torch
from loguru import logger
from torch.optim import Optimizer

from cls_data import ClassificationDataModule
from cls_export.contract.suggestions import did_you_mean
from cls_models import (
    VALIDATION_METRICS,
    ClassificationModule,
    Transfer,
    build_optimizer,
    check_batch_size_for_batch_norm,
    check_features_cacheable,
)
from cls_models.optim.schedule_factory import build_schedule, check_schedule
from cls_train.builders.trainer_batches import check_batches, count_optimizer_steps
from cls_train.composition.config import RunConfig
from cls_train.composition.instantiate import build_partial
from cls_train.distributed.ranks import get_ranks
from cls_train.errors import ConfigError


def check_trial_run(
    config: RunConfig, module: ClassificationModule, data: ClassificationDataModule
) -> None:
    """Try out the settings that only their own code can check.

    Builds an optimizer and a schedule, computes one loss, freezes the first layers, and runs the
    network on one image of each size.

    Raises:
        ConfigError: A setting is refused; the message names its key path.
        HardwareError: A batch is too small for batch normalization.
    """
    check_batches(config.trainer, data)
    factory = build_partial(config.optimizer, "optimizer")
    optimizer = _try_out(
        "optimizer",
        lambda: build_optimizer(factory, module.backbone, module.transfer, [module.loss]),
    )

    if config.scheduler:
        _check_scheduler(config, optimizer, data)

    _check_loss(config, module, len(data.classes))
    if module.transfer is not None:
        _check_transfer(config, module, module.transfer, data)

    for stage in data.config.growing_sizes:
        _check_image_size(module, data, stage.size, "data.growing_sizes")
    _check_image_size(module, data, data.preprocessing.size, "preprocessing.size")


def _check_scheduler(
    config: RunConfig, optimizer: Optimizer, data: ClassificationDataModule
) -> None:
    assert config.scheduler is not None
    factory = build_partial(config.scheduler, "scheduler")
    steps = count_optimizer_steps(config.trainer, data)
    schedule, interval = _try_out("scheduler", lambda: build_schedule(factory, optimizer, steps))

    metric = getattr(schedule, "monitor", None)
    if metric is not None and metric not in VALIDATION_METRICS:
        raise ConfigError(
            f"scheduler.monitor: {metric!r} is not logged; "
            f"{did_you_mean(metric, VALIDATION_METRICS)}"
        )
    if metric is None:
        updates = steps if interval == "step" else config.trainer["max_epochs"]
        _try_out("scheduler", lambda: check_schedule(schedule, optimizer, updates))


def _check_loss(config: RunConfig, module: ClassificationModule, num_classes: int) -> None:
    logits = torch.zeros(2, num_classes)
    labels = torch.tensor([0, 1])
    mixed_labels = torch.full((2, num_classes), 1 / num_classes)
    targets = mixed_labels if config.mixing else labels

    loss: Any = _try_out("loss", lambda: module.loss(logits, targets))
    if not isinstance(loss, torch.Tensor) or loss.ndim != 0:
        is_tensor = isinstance(loss, torch.Tensor)
        result = f"shape {list(loss.shape)}" if is_tensor else type(loss).__name__
        raise ConfigError(
            f"loss: {config.loss['_target_']}: expected a scalar from logits [B, C] and "
            f"labels [B], got {result}"
        )


def _check_transfer(
    config: RunConfig,
    module: ClassificationModule,
    transfer: Transfer,
    data: ClassificationDataModule,
) -> None:
    epochs = config.trainer.get("max_epochs") or 1
    _try_out("transfer", lambda: transfer.freeze_for_epoch(module.backbone, 0))
    for note in transfer.find_ineffective_settings(module.backbone, epochs):
        logger.warning("transfer: {}", note)
    if not transfer.cache_features:
        return
    check_features_cacheable(
        module.backbone,
        augmented=config.augmentation is not None,
        mixed=config.mixing is not None,
    )
    if data.config.growing_sizes:
        logger.warning(
            "data.growing_sizes has no effect with transfer.cache_features, "
            "which reads each image once"
        )


def _check_image_size(
    module: ClassificationModule, data: ClassificationDataModule, size: tuple[int, int], path: str
) -> None:
    module.eval()
    try:
        with torch.no_grad():
            module(torch.zeros(1, 3, *size))
    except Exception as error:  # networks raise many kinds of errors
        raise ConfigError(
            f"{path}: the network cannot process images of {size[0]} x {size[1]} pixels ({error})"
        ) from error
    finally:
        module.train()
    images = len(data.records("train"))
    batch_size = data.config.rank_batch_size(get_ranks().count)
    check_batch_size_for_batch_norm(module, images, batch_size, size)


def _try_out(path: str, attempt: Callable[[], Any]) -> Any:
    try:
        return attempt()
    except ConfigError:
        raise
    except Exception as error:  # libraries raise many kinds of errors for bad arguments
        message = str(error) or type(error).__name__
        raise ConfigError(f"{path}: {message}") from error
