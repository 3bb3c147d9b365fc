"""From a checked configuration to the objects that train."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from torch import nn

from cls_callbacks import BestAndLast
from cls_data import Augmentation, ClassificationDataModule, DataModuleConfig, Mixing
from cls_export import Preprocessing
from cls_models import VALIDATION_METRICS, Classifier, parameter_groups
from cls_train.config import Node, RunConfig
from cls_train.errors import ConfigError, did_you_mean
from cls_train.targets import build, build_partial, check_node

EXTRAS = {"TensorBoardLogger": "tensorboard", "WandbLogger": "wandb"}
"""Loggers that need an extra of this app, which is named after the package that it brings."""

NODES = (
    "data",
    "preprocessing",
    "augmentation",
    "mixing",
    "model",
    "loss",
    "optimizer",
    "scheduler",
    "trainer",
    "logger",
)


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
    metric, mode = config.monitor.metric, config.monitor.mode
    if metric not in VALIDATION_METRICS:
        raise ConfigError(f"monitor.metric: {metric!r} is not logged; {did_you_mean(metric, VALIDATION_METRICS)}")
    if (mode == "min") != metric.endswith("_loss"):
        better = "min" if mode == "max" else "max"
        raise ConfigError(f"monitor.mode: {mode!r} would keep the worst {metric} as best; set monitor.mode={better}")


def build_preprocessing(config: RunConfig) -> Preprocessing:
    """Build the one object that turns image files into model input, here and in the deployed runtime."""
    return build(config.preprocessing, "preprocessing", Preprocessing)


def build_data(config: RunConfig, preprocessing: Preprocessing, *, checked: bool = False) -> ClassificationDataModule:
    """Build the data module; nothing is read yet. Data that was checked before does not go through the gate again."""
    augmentation = None
    if config.augmentation:
        augmentation = build(config.augmentation, "augmentation", Augmentation)  # type: ignore[type-abstract]
    mixing = build(config.mixing, "mixing", Mixing) if config.mixing else None
    settings = build(config.data, "data", DataModuleConfig)
    return ClassificationDataModule(
        settings, preprocessing, augmentation, mixing=mixing, checked=checked, progress=True
    )


def build_module(config: RunConfig, data: ClassificationDataModule) -> Classifier:
    """Build the LightningModule for the classes and class weights that the data gave.

    Raises:
        ConfigError: the configuration states another number of classes, or class weights of its own beside
            data.class_weights; or optimiser, schedule or loss refuse their settings, which is tried here.
    """
    num_classes = len(data.classes)
    stated = config.model.get("num_classes", num_classes)
    if stated != num_classes:
        raise ConfigError(
            f"model.num_classes is {stated}, but the training split has {num_classes} classes; "
            "remove the setting, the number comes from the data"
        )
    weights = data.class_weights()
    node = {key: value for key, value in config.model.items() if key != "num_classes"}
    module = Classifier(
        backbone=build(node, "model", nn.Module, num_classes=num_classes),
        num_classes=num_classes,
        loss=build(config.loss, "loss", nn.Module, **({} if weights is None else {"weight": weights})),
        optimizer=build_partial(config.optimizer, "optimizer"),
        scheduler=build_partial(config.scheduler, "scheduler") if config.scheduler else None,
    )
    _try_out(config, module, num_classes)
    return module


def build_callbacks(config: RunConfig) -> Callbacks:
    """Build the callbacks; a null one is left out.

    Raises:
        ConfigError: there is not exactly one `cls_callbacks.BestAndLast`.
    """
    built = [build(node, f"callbacks.{name}", Callback) for name, node in config.callbacks.items() if node]
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
        ConfigError: this machine cannot do what is asked, such as training on a GPU that is not there; more than one
            device; or a training that would never validate, and so never have a best checkpoint.
    """
    for key in ("devices", "num_nodes"):
        if config.trainer.get(key, 1) not in (1, "1", [0]):
            raise ConfigError(f"trainer.{key}: the app trains on one device, got {config.trainer[key]}")
    logger = _build_logger(config.logger, folder) if logging and config.logger else False
    trainer = build(
        config.trainer, "trainer", Trainer, callbacks=callbacks, logger=logger, default_root_dir=str(folder)
    )
    epochs: Any = trainer.max_epochs
    if not isinstance(epochs, int) or epochs == 0:
        raise ConfigError(f"trainer.max_epochs: expected a number of epochs from 1 on, got {epochs!r}")
    if trainer.limit_val_batches == 0 or (trainer.check_val_every_n_epoch or 1) > epochs > 0:
        raise ConfigError("trainer: no validation would ever run, so no weights could be called best")
    return trainer


def _build_logger(node: Node, folder: Path) -> Logger:
    try:
        return build(node, "logger", Logger, save_dir=str(folder))  # type: ignore[type-abstract]
    except ConfigError as error:
        extra = EXTRAS.get(str(node.get("_target_")).rpartition(".")[2])
        if extra is not None and importlib.util.find_spec(extra) is None:
            raise ConfigError(f"logger: {extra} is not installed; run: uv run --extra {extra} apps/train …") from error
        raise


def _try_out(config: RunConfig, module: Classifier, num_classes: int) -> None:
    """Make an optimiser and a schedule, and compute one loss, so that a bad setting is known before the first step."""
    optimizer = _tried("optimizer", lambda: build_partial(config.optimizer, "optimizer")(parameter_groups(module)))
    if config.scheduler:
        scheduler = build_partial(config.scheduler, "scheduler")
        _tried("scheduler", lambda: scheduler(optimizer, 100))
    targets = torch.full((2, num_classes), 1 / num_classes) if config.mixing else torch.tensor([0, 1])
    loss: Any = _tried("loss", lambda: module.loss(torch.zeros(2, num_classes), targets))
    if not isinstance(loss, torch.Tensor) or loss.ndim != 0:
        raise ConfigError(f"loss: {config.loss['_target_']} does not map logits [B, C] and labels [B] to one number")


def _tried(path: str, attempt: Callable[[], Any]) -> Any:
    try:
        return attempt()
    except ConfigError:
        raise
    except Exception as error:  # whatever a library says of a bad argument
        raise ConfigError(f"{path}: {error}") from error
