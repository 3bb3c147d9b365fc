"""Build the callbacks, the loggers, and the trainer."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from loguru import logger

from cls_callbacks import BestAndLastCheckpoint
from cls_models import ClassificationModule, check_precision, prepare_for_device
from cls_train.composition.config import Node, RunConfig
from cls_train.composition.instantiate import build
from cls_train.errors import ConfigError

LOGGER_EXTRAS = {"MLFlowLogger": "mlflow", "WandbLogger": "wandb"}
"""Loggers that need an extra of this app. Each extra has the name of the module it installs."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """All callbacks of a run, and the required one among them."""

    all: list[Callback]
    best_and_last: BestAndLastCheckpoint


def build_callbacks(config: RunConfig) -> Callbacks:
    """Build the callbacks that are not null.

    Raises:
        ConfigError: There is not exactly one `cls_callbacks.BestAndLastCheckpoint`.
    """
    callbacks = []
    for name, node in config.callbacks.items():
        if node:
            callbacks.append(build(node, f"callbacks.{name}", Callback))

    checkpoints = [each for each in callbacks if isinstance(each, BestAndLastCheckpoint)]
    if len(checkpoints) != 1:
        raise ConfigError(
            "callbacks: expected exactly one cls_callbacks.BestAndLastCheckpoint, "
            f"got {len(checkpoints)}; the app resumes from, evaluates, and exports its checkpoints"
        )
    return Callbacks(callbacks, checkpoints[0])


def build_trainer(
    config: RunConfig, folder: Path, callbacks: list[Callback], *, logging: bool
) -> Trainer:
    """Build the trainer of a run folder, with the configured loggers or with none.

    Raises:
        ConfigError: The device does not exist, there is more than one, or no validation would run.
    """
    for key in ("devices", "num_nodes"):
        if config.trainer.get(key, 1) not in (1, "1", [0]):
            raise ConfigError(
                f"trainer.{key}: the app trains on one device, got {config.trainer[key]}"
            )

    loggers = _build_loggers(config.logger, folder) if logging else []
    node = {key: value for key, value in config.trainer.items() if key != "precision"}
    device = _find_device(node)
    precision = check_precision(config.trainer.get("precision", "32-true"), device)

    trainer = build(
        {**node, "precision": precision},
        "trainer",
        Trainer,
        callbacks=callbacks,
        logger=loggers,
        default_root_dir=str(folder),
    )
    _check_epochs(trainer)
    return trainer


def optimize_for_device(module: ClassificationModule, trainer: Trainer) -> None:
    """Prepare the network for the device.

    Weights stay the same; outputs change only by rounding.
    """
    device = trainer.strategy.root_device
    precision = check_precision(trainer.precision, device)

    if precision != "32-true":
        logger.info("precision: {}", precision)

    for note in prepare_for_device(module.backbone, device, precision):
        logger.debug("{}", note)


def _find_device(node: Node) -> torch.device:
    # `accelerator: auto` is resolved to a device only by building a trainer.
    settings = {**node, "plugins": None, "logger": False}
    trainer = build(settings, "trainer", Trainer)
    return trainer.strategy.root_device


def _check_epochs(trainer: Trainer) -> None:
    epochs: Any = trainer.max_epochs
    if not isinstance(epochs, int) or epochs < 1:
        raise ConfigError(f"trainer.max_epochs: expected an integer of at least 1, got {epochs!r}")

    epochs_between_validations = trainer.check_val_every_n_epoch or 1
    if trainer.limit_val_batches == 0 or epochs_between_validations > epochs:
        raise ConfigError("trainer: no validation would run, so there would be no best.ckpt")


def _build_loggers(nodes: dict[str, Node | None], folder: Path) -> list[Logger]:
    loggers = []
    for name, node in nodes.items():
        if node:
            loggers.append(_build_logger(node, f"logger.{name}", folder))
    return loggers


def _build_logger(node: Node, path: str, folder: Path) -> Logger:
    try:
        return build(node, path, Logger, save_dir=str(folder))  # type: ignore[type-abstract]
    except ConfigError as error:
        extra = LOGGER_EXTRAS.get(str(node.get("_target_")).rpartition(".")[2])
        if extra is not None and importlib.util.find_spec(extra) is None:
            raise ConfigError(
                f"{path}: {extra} is not installed; run: uv run --extra {extra} apps/train …"
            ) from error
        raise
