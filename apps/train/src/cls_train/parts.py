"""From a checked configuration to the objects that train."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer

from cls_callbacks import BestAndLast
from cls_data import ClassificationDataModule
from cls_export import Preprocessing
from cls_models import VALIDATION_METRICS, Classifier
from cls_train.config import Node, RunConfig
from cls_train.errors import ConfigError, did_you_mean
from cls_train.targets import build, check_node

EXTRAS = {"TensorBoardLogger": "tensorboard", "WandbLogger": "wandb"}
"""Loggers that need an extra of this app, which is named after the package that it brings."""

NODES = ("data", "preprocessing", "augmentation", "model", "loss", "optimizer", "scheduler", "trainer", "logger")


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The callbacks of a run, with the one that it cannot do without."""

    all: list[Callback]
    best_and_last: BestAndLast


def check_nodes(config: RunConfig) -> None:
    """Check every `_target_` and argument name, and the monitored metric, without building anything.

    Raises:
        ConfigError: names the key path.
    """
    for name in NODES:
        check_node(getattr(config, name), name)
    check_node(config.callbacks, "callbacks")
    if config.monitor.metric not in VALIDATION_METRICS:
        hint = did_you_mean(config.monitor.metric, VALIDATION_METRICS)
        raise ConfigError(f"monitor.metric: {config.monitor.metric!r} is not logged; {hint}")


def build_preprocessing(config: RunConfig) -> Preprocessing:
    """Build the one object that turns image files into model input, here and in the deployed runtime."""
    preprocessing = build(config.preprocessing, "preprocessing")
    if not isinstance(preprocessing, Preprocessing):
        raise ConfigError(f"preprocessing: expected a cls_export.Preprocessing, got {preprocessing!r}")
    return preprocessing


def build_data(config: RunConfig, preprocessing: Preprocessing) -> ClassificationDataModule:
    """Build the data module; nothing is read yet."""
    augmentation = build(config.augmentation, "augmentation") if config.augmentation else None
    return ClassificationDataModule(build(config.data, "data"), preprocessing, augmentation, progress=True)


def build_module(config: RunConfig, data: ClassificationDataModule) -> Classifier:
    """Build the LightningModule for the classes and class weights that the data gave.

    Raises:
        ConfigError: the configuration states another number of classes, or a class weight of its own.
    """
    num_classes = len(data.classes)
    stated = config.model.get("num_classes", num_classes)
    if stated != num_classes:
        raise ConfigError(
            f"model.num_classes is {stated}, but the training split has {num_classes} classes; "
            "remove the setting, the number comes from the data"
        )
    weights = data.class_weights()
    return Classifier(
        backbone=build(config.model, "model", num_classes=num_classes),
        num_classes=num_classes,
        loss=build(config.loss, "loss", **({} if weights is None else {"weight": weights})),
        optimizer=build(config.optimizer, "optimizer"),
        scheduler=build(config.scheduler, "scheduler") if config.scheduler else None,
    )


def build_callbacks(config: RunConfig) -> Callbacks:
    """Build the callbacks; a null one is left out.

    Raises:
        ConfigError: there is not exactly one `cls_callbacks.BestAndLast`.
    """
    built: list[Callback] = [build(node, f"callbacks.{name}") for name, node in config.callbacks.items() if node]
    keepers = [callback for callback in built if isinstance(callback, BestAndLast)]
    if len(keepers) != 1:
        raise ConfigError(
            f"callbacks: {len(keepers)} of them are cls_callbacks.BestAndLast; exactly one is needed, "
            "since it writes what is resumed, evaluated and exported"
        )
    return Callbacks(built, keepers[0])


def build_trainer(config: RunConfig, folder: Path, callbacks: list[Callback], *, logging: bool) -> Trainer:
    """Build the trainer for a run's folder, with the configured logger or with none.

    Raises:
        ConfigError: this machine cannot do what is asked, such as training on a GPU that is not there.
    """
    logger: Any = _build_logger(config.logger, folder) if logging and config.logger else False
    try:
        trainer: Trainer = build(
            config.trainer, "trainer", callbacks=callbacks, logger=logger, default_root_dir=str(folder)
        )
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {error}") from error
    return trainer


def _build_logger(node: Node, folder: Path) -> Any:
    try:
        return build(node, "logger", save_dir=str(folder))
    except ConfigError as error:
        extra = EXTRAS.get(node["_target_"].rpartition(".")[2])
        if extra is not None and importlib.util.find_spec(extra) is None:
            raise ConfigError(f"logger: {extra} is not installed; run: uv run --extra {extra} apps/train …") from error
        raise
