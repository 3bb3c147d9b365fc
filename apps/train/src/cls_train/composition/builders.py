"""From a checked configuration to the objects that train."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from loguru import logger
from torch import nn

from cls_callbacks import BestAndLastCheckpoint
from cls_data import Augmentation, ClassificationDataModule, DataModuleConfig, MixupCutmix
from cls_export import LabelsMapping, Preprocessing
from cls_export.contract.suggestions import did_you_mean
from cls_models import (
    VALIDATION_METRICS,
    ClassificationModule,
    Distillation,
    Transfer,
    build_optimizer,
    check_batch_size_for_batch_norm,
    check_features_cacheable,
    check_precision,
    find_source_run,
    prepare_for_device,
)
from cls_train.composition.config import Node, RunConfig
from cls_train.composition.instantiate import build, build_partial, check_node, takes
from cls_train.errors import ConfigError
from cls_train.run_folder import RunFolder, refuse_damaged

EXTRAS = {"MLFlowLogger": "mlflow", "WandbLogger": "wandb"}
"""Loggers that need an extra of this app, which is named after the module that it brings."""

NODES = (
    "data",
    "preprocessing",
    "augmentation",
    "mixing",
    "model",
    "transfer",
    "loss",
    "distillation",
    "optimizer",
    "scheduler",
    "trainer",
)


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The callbacks of a run, with the one that it cannot do without."""

    all: list[Callback]
    best_and_last: BestAndLastCheckpoint


def check_nodes(config: RunConfig) -> None:
    """Check every `_target_` and argument name, and the monitored metric, without building anything.

    Raises:
        ConfigError: names the key path.
    """
    for name in NODES:
        check_node(getattr(config, name), name)
    check_node(config.callbacks, "callbacks")
    check_node(config.logger, "logger")
    metric, mode = config.monitor.metric, config.monitor.mode
    if metric not in VALIDATION_METRICS:
        raise ConfigError(
            f"monitor.metric: {metric!r} is not logged; {did_you_mean(metric, VALIDATION_METRICS)}"
        )
    if (mode == "min") != metric.endswith("_loss"):
        better = "min" if mode == "max" else "max"
        raise ConfigError(
            f"monitor.mode: {mode!r} would keep the worst {metric} as best; set monitor.mode={better}"
        )


def build_preprocessing(config: RunConfig) -> Preprocessing:
    """Build the one object that turns image files into model input, here and in the deployed runtime."""
    return build(config.preprocessing, "preprocessing", Preprocessing)


def build_data(
    config: RunConfig, preprocessing: Preprocessing, *, checked: bool = False
) -> ClassificationDataModule:
    """Build the data module; nothing is read yet. Data that was checked before does not go through the gate again."""
    augmentation = None
    if config.augmentation:
        augmentation = build(config.augmentation, "augmentation", Augmentation)  # type: ignore[type-abstract]
    mixing = build(config.mixing, "mixing", MixupCutmix) if config.mixing else None
    settings = build(config.data, "data", DataModuleConfig)
    return ClassificationDataModule(
        settings, preprocessing, augmentation, mixing=mixing, checked=checked, progress=True
    )


def build_module(
    config: RunConfig, data: ClassificationDataModule, *, trained: bool = False, taught: bool = True
) -> ClassificationModule:
    """Build the LightningModule for the classes and class weights that the data gave.

    Args:
        config: of the run.
        data: set up.
        trained: weights will be loaded into it, so that none need be had for its beginning.
        taught: it is going to train, and needs its teacher where the run has one.

    Raises:
        ConfigError: the configuration states another number of classes, or class weights of its own beside
            data.class_weights; or optimizer, schedule or loss refuse their settings, which is tried here.
    """
    transfer = build(config.transfer, "transfer", Transfer) if config.transfer else None
    if transfer is not None and not trained and _starts_at_random(config):
        logger.warning(
            "transfer: the network starts from random weights, which frozen layers would keep, and slow ones nearly; "
            "set model.weights=DEFAULT or +model.init_from=RUN, or leave the transfer out: transfer=none"
        )
    module = ClassificationModule(
        backbone=build_network(config, data.classes, data.preprocessing.size, trained=trained),
        num_classes=len(data.classes),
        loss=_build_loss(config, data),
        optimizer=build_partial(config.optimizer, "optimizer"),
        scheduler=build_partial(config.scheduler, "scheduler") if config.scheduler else None,
        transfer=transfer,
        distillation=_build_distillation(config, data) if taught and config.distillation else None,
    )
    _try_out(config, module, data)
    return module


def build_network(
    config: RunConfig, classes: Sequence[str], image_size: tuple[int, int], *, trained: bool = False
) -> nn.Module:
    """Build the network of a run's model node, with or without the weights that its training began with.

    Raises:
        ConfigError: the configuration states another number of classes.
        BackboneError: the model node names a run to start from that is none.
        RunError: the checkpoint of that run is damaged.
    """
    stated = config.model.get("num_classes", len(classes))
    if stated != len(classes):
        raise ConfigError(
            f"model.num_classes is {stated}, but the training split has {len(classes)} classes; "
            "remove the setting, the number comes from the data"
        )
    left_out = {"num_classes", *(("weights", "init_from") if trained else ())}
    node = {key: value for key, value in config.model.items() if key not in left_out}
    known: dict[str, Any] = {"image_size": image_size}
    if source := node.get("init_from"):
        refuse_damaged(find_source_run(str(source)).checkpoint)
        known["classes"] = list(classes)
    runtime = {key: value for key, value in known.items() if takes(node, key, "model")}
    return build(node, "model", nn.Module, num_classes=len(classes), **runtime)


def record_stem(config: RunConfig, network: nn.Module) -> RunConfig:
    """Return the configuration with the stem that the network was given, where it was left to the input's size."""
    stem = getattr(network, "stem_kind", None)
    if not isinstance(stem, str) or not takes(config.model, "stem", "model"):
        return config
    return config.model_copy(update={"model": {**config.model, "stem": stem}})


def optimize_for_device(module: ClassificationModule, trainer: Trainer) -> None:
    """Prepare the network for the device that trains or evaluates it: same weights, same answers but for rounding."""
    device = trainer.strategy.root_device
    precision = check_precision(trainer.precision, device)
    if precision != "32-true":
        logger.info("trains in {}", precision)
    for note in prepare_for_device(module.backbone, device, precision):
        logger.debug("{}", note)


def build_callbacks(config: RunConfig) -> Callbacks:
    """Build the callbacks; a null one is left out.

    Raises:
        ConfigError: there is not exactly one `cls_callbacks.BestAndLastCheckpoint`.
    """
    built = [
        build(node, f"callbacks.{name}", Callback)
        for name, node in config.callbacks.items()
        if node
    ]
    keepers = [callback for callback in built if isinstance(callback, BestAndLastCheckpoint)]
    if len(keepers) != 1:
        raise ConfigError(
            f"callbacks: {len(keepers)} of them are cls_callbacks.BestAndLastCheckpoint; exactly one is needed, "
            "since it writes what is resumed, evaluated and exported"
        )
    return Callbacks(built, keepers[0])


def build_trainer(
    config: RunConfig, folder: Path, callbacks: list[Callback], *, logging: bool
) -> Trainer:
    """Build the trainer for a run's folder, with the configured loggers or with none.

    Raises:
        ConfigError: this machine cannot do what is asked, such as training on a GPU that is not there; more than one
            device; or a training that would never validate, and so never have a best checkpoint.
    """
    for key in ("devices", "num_nodes"):
        if config.trainer.get(key, 1) not in (1, "1", [0]):
            raise ConfigError(
                f"trainer.{key}: the app trains on one device, got {config.trainer[key]}"
            )
    nodes = config.logger if logging else {}
    loggers = [
        _build_logger(node, f"logger.{name}", folder) for name, node in nodes.items() if node
    ]
    # Twice, since only a trainer knows which device `accelerator: auto` finds.
    node = {key: value for key, value in config.trainer.items() if key != "precision"}
    device = build(
        {**node, "plugins": None, "logger": False}, "trainer", Trainer
    ).strategy.root_device
    precision = check_precision(config.trainer.get("precision", "32-true"), device)
    trainer = build(
        {**node, "precision": precision},
        "trainer",
        Trainer,
        callbacks=callbacks,
        logger=loggers,
        default_root_dir=str(folder),
    )
    epochs: Any = trainer.max_epochs
    if not isinstance(epochs, int) or epochs < 1:
        raise ConfigError(
            f"trainer.max_epochs: expected a number of epochs from 1 on, got {epochs!r}"
        )
    if trainer.limit_val_batches == 0 or (trainer.check_val_every_n_epoch or 1) > epochs:
        raise ConfigError(
            "trainer: no validation would ever run, so no weights could be called best"
        )
    return trainer


def _build_logger(node: Node, path: str, folder: Path) -> Logger:
    try:
        return build(node, path, Logger, save_dir=str(folder))  # type: ignore[type-abstract]
    except ConfigError as error:
        extra = EXTRAS.get(str(node.get("_target_")).rpartition(".")[2])
        if extra is not None and importlib.util.find_spec(extra) is None:
            raise ConfigError(
                f"{path}: {extra} is not installed; run: uv run --extra {extra} apps/train …"
            ) from error
        raise


def _build_loss(config: RunConfig, data: ClassificationDataModule) -> nn.Module:
    """Build the loss with what it takes of the training split: weights or counts of the classes."""
    runtime: dict[str, Any] = {}
    weights = data.class_weights()
    if takes(config.loss, "class_counts", "loss"):
        if weights is not None or data.config.sampler == "weighted":
            setting = "class_weights" if weights is not None else "sampler"
            raise ConfigError(
                f"loss: {config.loss['_target_']} corrects the imbalance, and so does data.{setting}="
                f"{getattr(data.config, setting)}; keep one of them"
            )
        runtime["class_counts"] = data.class_counts()
    elif weights is not None:
        runtime["weight"] = weights
    return build(config.loss, "loss", nn.Module, **runtime)


def _build_distillation(config: RunConfig, data: ClassificationDataModule) -> Distillation:
    """Build the teacher as its own run's config.yaml describes it."""
    assert config.distillation is not None
    run = Path(str(config.distillation.get("run")))
    folder = RunFolder(run.parent.parent if run.suffix == ".ckpt" else run)
    refuse_damaged(run if run.suffix == ".ckpt" else folder.best)
    theirs = folder.read_config()
    check_node(theirs.model, f"model of {folder.config}")
    known, ours = LabelsMapping.load(folder.labels).preprocessing, build_preprocessing(config)
    if known.resize != ours.resize:
        logger.warning(
            "distillation: the teacher was trained on images resized by {!r} and is shown this run's, resized by {!r}, "
            "which it knows less well; set preprocessing.resize={}, or train a teacher that resizes as this run does",
            known.resize,
            ours.resize,
            known.resize,
        )

    def teacher(*, num_classes: int) -> nn.Module:
        return build_network(
            theirs, [str(index) for index in range(num_classes)], known.size, trained=True
        )

    return build(
        config.distillation,
        "distillation",
        Distillation,
        backbone=teacher,
        classes=data.classes,
        mean=ours.mean,
        std=ours.std,
    )


def _try_out(
    config: RunConfig, module: ClassificationModule, data: ClassificationDataModule
) -> None:
    """Make an optimizer and a schedule, and compute one loss, so that a bad setting is known before the first step."""
    num_classes = len(data.classes)
    factory = build_partial(config.optimizer, "optimizer")
    optimizer = _tried(
        "optimizer",
        lambda: build_optimizer(factory, module.backbone, module.transfer, [module.loss]),
    )
    if config.scheduler:
        scheduler = build_partial(config.scheduler, "scheduler")
        schedule = _tried("scheduler", lambda: scheduler(optimizer, _most_steps(config, data)))
        if (
            metric := getattr(schedule, "monitor", VALIDATION_METRICS[0])
        ) not in VALIDATION_METRICS:
            raise ConfigError(
                f"scheduler.monitor: {metric!r} is not logged; {did_you_mean(metric, VALIDATION_METRICS)}"
            )
    targets = (
        torch.full((2, num_classes), 1 / num_classes) if config.mixing else torch.tensor([0, 1])
    )
    loss: Any = _tried("loss", lambda: module.loss(torch.zeros(2, num_classes), targets))
    if not isinstance(loss, torch.Tensor) or loss.ndim != 0:
        raise ConfigError(
            f"loss: {config.loss['_target_']} does not map logits [B, C] and labels [B] to one number"
        )
    if (transfer := module.transfer) is not None:
        _tried("transfer", lambda: transfer.apply(module.backbone, 0))
        for note in transfer.notes(module.backbone, config.trainer.get("max_epochs") or 1):
            logger.warning("transfer: {}", note)
        if transfer.cache_features:
            check_features_cacheable(
                module.backbone,
                augmented=config.augmentation is not None,
                mixed=config.mixing is not None,
            )
            if data.config.growing_sizes:
                logger.warning(
                    "data.growing_sizes has no effect with transfer.cache_features, which sees images once"
                )
    for stage in data.config.growing_sizes:
        _try_size(module, data, stage.size, "data.growing_sizes")
    _try_size(module, data, data.preprocessing.size, "preprocessing.size")


def _starts_at_random(config: RunConfig) -> bool:
    """Whether a network that could be given weights is given none; one of another library may have its own way."""
    return takes(config.model, "weights", "model") and not (
        config.model.get("weights") or config.model.get("init_from")
    )


def _most_steps(config: RunConfig, data: ClassificationDataModule) -> int:
    """Return how many optimizer steps there will be, unless other settings of the trainer leave some out."""
    epochs = config.trainer.get("max_epochs")
    steps = max(1, len(data.records("train")) // data.config.batch_size)
    return epochs * steps if isinstance(epochs, int) else steps


def _try_size(
    module: ClassificationModule, data: ClassificationDataModule, size: tuple[int, int], path: str
) -> None:
    """Show the network an image of a size that it is to train on."""
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, 3, *size))
    except Exception as error:  # each network fails in a way of its own
        raise ConfigError(
            f"{path}: the network cannot take images of {size[0]} x {size[1]} pixels ({error})"
        ) from error
    finally:
        module.train()
    check_batch_size_for_batch_norm(
        module, len(data.records("train")), data.config.batch_size, size
    )


def _tried(path: str, attempt: Callable[[], Any]) -> Any:
    try:
        return attempt()
    except ConfigError:
        raise
    except Exception as error:  # whatever a library says of a bad argument
        raise ConfigError(f"{path}: {error}") from error
