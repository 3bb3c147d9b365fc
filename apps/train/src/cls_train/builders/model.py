"""Build the network, the loss, the teacher, and the LightningModule around them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loguru import logger
from torch import nn

from cls_data import ClassificationDataModule
from cls_export import LabelsMapping, Preprocessing
from cls_export.contract.run_layout import RunPaths
from cls_models import (
    ClassificationModule,
    DistillationLoss,
    Transfer,
    find_init_checkpoint,
)
from cls_train.builders.data import build_preprocessing
from cls_train.builders.trial import check_trial_run
from cls_train.composition.config import RunConfig
from cls_train.composition.instantiate import accepts, build, build_partial, check_node
from cls_train.errors import ConfigError
from cls_train.run_folder.checkpoints import check_checkpoint
from cls_train.run_folder.run_paths import read_config


def build_module(
    config: RunConfig,
    data: ClassificationDataModule,
    *,
    skip_initial_weights: bool = False,
    skip_distillation: bool = False,
) -> ClassificationModule:
    """Build the LightningModule for the classes of the data, and try out its settings.

    Args:
        config: The run.
        data: Its data module, set up.
        skip_initial_weights: Do not load pretrained weights or those of another run, because a
            checkpoint will be loaded.
        skip_distillation: Do not load the teacher, because the module will not be trained.

    Raises:
        ConfigError: `num_classes` differs from the data, two settings correct the imbalance, or
            the optimizer, schedule, loss, or transfer refuses its settings.
    """
    transfer = build(config.transfer, "transfer", Transfer) if config.transfer else None
    if transfer is not None and not skip_initial_weights and _starts_at_random(config):
        logger.warning(
            "transfer: the network starts from random weights, which frozen layers would keep; "
            "set model.weights=DEFAULT or model.init_from=RUN, or set transfer=none"
        )
    network = build_network(
        config,
        data.classes,
        data.preprocessing.size,
        skip_initial_weights=skip_initial_weights,
    )
    loss = _build_loss(config, data)
    scheduler = build_partial(config.scheduler, "scheduler") if config.scheduler else None
    distillation = None
    if config.distillation and not skip_distillation:
        distillation = _build_distillation(config, data)
    module = ClassificationModule(
        backbone=network,
        num_classes=len(data.classes),
        loss=loss,
        optimizer=build_partial(config.optimizer, "optimizer"),
        scheduler=scheduler,
        transfer=transfer,
        distillation=distillation,
    )

    check_trial_run(config, module, data)
    return module


def build_network(
    config: RunConfig,
    classes: Sequence[str],
    image_size: tuple[int, int],
    *,
    skip_initial_weights: bool = False,
) -> nn.Module:
    """Build the network of the model node, optionally without its initial weights.

    Args:
        config: The run.
        classes: Class names, in index order.
        image_size: Height and width of the input, in pixels.
        skip_initial_weights: Leave the weights random.

    Raises:
        ConfigError: `num_classes` differs from the number of classes.
        BackboneError: `init_from` is not a run folder, checkpoint, or bundle.
        RunError: The checkpoint of that run is damaged.
    """
    num_classes = config.model.get("num_classes", len(classes))
    if num_classes != len(classes):
        raise ConfigError(
            f"model.num_classes is {num_classes}, but the training split has {len(classes)} "
            "classes; remove the setting, the number comes from the data"
        )

    node = dict(config.model)
    node.pop("num_classes", None)
    if skip_initial_weights:
        node.pop("weights", None)
        node.pop("init_from", None)

    runtime: dict[str, Any] = {}
    if accepts(node, "image_size"):
        runtime["image_size"] = image_size
    source = node.get("init_from")
    if source:
        check_checkpoint(find_init_checkpoint(str(source)).checkpoint)
        if accepts(node, "classes"):
            runtime["classes"] = list(classes)

    return build(node, "model", nn.Module, num_classes=len(classes), **runtime)


def record_stem(config: RunConfig, network: nn.Module) -> RunConfig:
    """Return the configuration with the stem that `stem: auto` has selected."""
    stem = getattr(network, "stem_kind", None)
    if not isinstance(stem, str) or not accepts(config.model, "stem"):
        return config

    model = {**config.model, "stem": stem}
    return config.model_copy(update={"model": model})


def _starts_at_random(config: RunConfig) -> bool:
    """Whether a network that accepts weights gets none; other networks may load their own."""
    if not accepts(config.model, "weights"):
        return False

    has_weights = config.model.get("weights")
    has_source_run = config.model.get("init_from")
    return not has_weights and not has_source_run


def _build_loss(config: RunConfig, data: ClassificationDataModule) -> nn.Module:
    """Build the loss with the class weights or class counts of the training split."""
    weights = data.class_weights()
    runtime: dict[str, Any] = {}

    if accepts(config.loss, "class_counts"):
        if weights is not None:
            _refuse_second_correction(config, "class_weights", data.config.class_weights)
        if data.config.sampler == "weighted":
            _refuse_second_correction(config, "sampler", data.config.sampler)
        runtime["class_counts"] = data.class_counts()
    elif weights is not None:
        runtime["weight"] = weights

    return build(config.loss, "loss", nn.Module, **runtime)


def _refuse_second_correction(config: RunConfig, setting: str, value: Any) -> None:
    raise ConfigError(
        f"loss: {config.loss['_target_']} and data.{setting}={value} both correct the class "
        "imbalance; use only one of them"
    )


def _build_distillation(config: RunConfig, data: ClassificationDataModule) -> DistillationLoss:
    """Build the teacher from the config.yaml of its run."""
    assert config.distillation is not None
    path = Path(str(config.distillation.get("run")))
    if path.suffix == ".ckpt":
        run = RunPaths.from_checkpoint(path)
        check_checkpoint(path)
    else:
        run = RunPaths(path)
        check_checkpoint(run.best)
    teacher_config = read_config(run)
    try:
        check_node(teacher_config.model, "model", config.allow_targets)
    except ConfigError as error:
        raise ConfigError(f"distillation.run: {run.config}: {error}") from error
    teacher_input = LabelsMapping.load(run.labels).preprocessing
    student_input = build_preprocessing(config)
    _warn_about_resize(teacher_input, student_input)

    def build_teacher(*, num_classes: int) -> nn.Module:
        indices = [str(index) for index in range(num_classes)]
        return build_network(teacher_config, indices, teacher_input.size, skip_initial_weights=True)

    return build(
        config.distillation,
        "distillation",
        DistillationLoss,
        backbone=build_teacher,
        classes=data.classes,
        mean=student_input.mean,
        std=student_input.std,
    )


def _warn_about_resize(teacher_input: Preprocessing, student_input: Preprocessing) -> None:
    if teacher_input.resize != student_input.resize:
        logger.warning(
            "distillation: the teacher was trained with resize {!r}, this run uses {!r}, which "
            "makes the teacher less accurate; set preprocessing.resize={}, or train a teacher "
            "with this run's resize",
            teacher_input.resize,
            student_input.resize,
            teacher_input.resize,
        )
