"""Build the callbacks, and check the metrics that they monitor."""

from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    DeviceStatsMonitor,
    EarlyStopping,
    LearningRateMonitor,
    ProgressBar,
)
from loguru import logger

from cls_callbacks import BestAndLastCheckpoint
from cls_export.contract.suggestions import did_you_mean
from cls_models import VALIDATION_METRICS, CudaGraphCallback
from cls_train.composition.config import Node, RunConfig
from cls_train.composition.instantiate import build
from cls_train.errors import ConfigError

TRAINING_METRICS = ("train_loss", "train_top1")
"""Metrics that a `ClassificationModule` logs at the end of every training epoch."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """All callbacks of a run, and the required one among them."""

    all: list[Callback]
    best_and_last: BestAndLastCheckpoint


def build_callbacks(config: RunConfig) -> Callbacks:
    """Build the callbacks that are not null, and the one for `acceleration: auto`.

    Raises:
        ConfigError: There is not exactly one `cls_callbacks.BestAndLastCheckpoint`, a callback
            monitors a metric that is not logged or in the wrong direction, or it does not fit the
            loggers or the trainer.
    """
    callbacks = {}
    for name, node in config.callbacks.items():
        if node:
            callbacks[name] = build(node, f"callbacks.{name}", Callback)

    for name, callback in callbacks.items():
        _check_monitor(callback, f"callbacks.{name}", config)
        _check_loggers(callback, f"callbacks.{name}", config)
    _check_progress_bars(callbacks, config)

    checkpoints = [each for each in callbacks.values() if isinstance(each, BestAndLastCheckpoint)]
    if len(checkpoints) != 1:
        raise ConfigError(
            "callbacks: expected exactly one cls_callbacks.BestAndLastCheckpoint, "
            f"got {len(checkpoints)}; the app resumes from, evaluates, and exports its checkpoints"
        )
    return Callbacks(_accelerate(list(callbacks.values()), config), checkpoints[0])


def _accelerate(callbacks: list[Callback], config: RunConfig) -> list[Callback]:
    """Add or remove what changes how fast steps are, and nothing else."""
    if config.acceleration == "off":
        for callback in callbacks:
            if isinstance(callback, BestAndLastCheckpoint):
                callback.asynchronous = False
        return [each for each in callbacks if not isinstance(each, CudaGraphCallback)]
    if any(isinstance(each, CudaGraphCallback) for each in callbacks):
        return callbacks
    return [*callbacks, CudaGraphCallback()]


def check_metric(metric: str, mode: str, metric_path: str, mode_path: str) -> None:
    """Check that a logged metric is improved in the right direction.

    Raises:
        ConfigError: `mode` is the direction in which the metric gets worse.
    """
    expected_mode = "min" if metric.endswith("_loss") else "max"
    if mode in ("min", "max") and mode != expected_mode:
        direction = "lower" if mode == "min" else "higher"
        raise ConfigError(
            f"{mode_path}: {mode!r} would select the worst {metric}, because it takes a "
            f"{direction} value of {metric_path} as better; set {mode_path}={expected_mode}"
        )


def _check_monitor(callback: Callback, path: str, config: RunConfig) -> None:
    metric = getattr(callback, "monitor", None)
    if not isinstance(metric, str):
        if isinstance(callback, EarlyStopping):
            raise ConfigError(f"{path}.monitor: expected the name of a metric, got {metric!r}")
        return

    known = VALIDATION_METRICS
    if not isinstance(callback, BestAndLastCheckpoint):
        known += TRAINING_METRICS
    if metric not in known:
        problem = f"{path}.monitor: {metric!r} is not logged; {did_you_mean(metric, known)}"
        if not config.allow_targets:
            raise ConfigError(problem)
        logger.warning("{}. Your own classes may log it.", problem)
        return

    mode = getattr(callback, "mode", None)
    if isinstance(mode, str):
        check_metric(metric, mode, f"{path}.monitor", f"{path}.mode")
    if isinstance(callback, EarlyStopping):
        _check_early_stopping(callback, path, config.trainer)


def _check_early_stopping(callback: EarlyStopping, path: str, trainer: Node) -> None:
    """Check that the metric has a value whenever the callback reads it."""
    validates_within_epochs = trainer.get("val_check_interval") not in (None, 1.0)
    validates_every_epoch = trainer.get("check_val_every_n_epoch", 1) == 1

    reads_at_epoch_end = callback._check_on_train_epoch_end
    if reads_at_epoch_end is None:  # as Lightning decides
        reads_at_epoch_end = validates_every_epoch and not validates_within_epochs

    setting = f"{path}.check_on_train_epoch_end"
    is_training_metric = callback.monitor in TRAINING_METRICS
    if is_training_metric and not reads_at_epoch_end:
        raise ConfigError(
            f"{setting}: {callback.monitor} has no value during a validation; set {setting}=true"
        )
    if not is_training_metric and reads_at_epoch_end and not validates_every_epoch:
        raise ConfigError(
            f"{setting}: {callback.monitor} has no value at the end of an epoch without a "
            f"validation; set {setting}=false, or trainer.check_val_every_n_epoch=1"
        )


def _check_loggers(callback: Callback, path: str, config: RunConfig) -> None:
    has_logger = any(config.logger.values())
    if isinstance(callback, DeviceStatsMonitor | LearningRateMonitor) and not has_logger:
        name = type(callback).__name__
        raise ConfigError(f"{path}: {name} needs a logger, such as logger=tensorboard")
    if isinstance(callback, LearningRateMonitor) and not config.scheduler:
        raise ConfigError(f"{path}: LearningRateMonitor needs a schedule, but scheduler is none")


def _check_progress_bars(callbacks: dict[str, Any], config: RunConfig) -> None:
    names = [name for name, each in callbacks.items() if isinstance(each, ProgressBar)]
    if len(names) > 1:
        keys = " and ".join(f"callbacks.{name}" for name in names)
        raise ConfigError(f"{keys} are both progress bars; set callbacks.{names[0]}=null")
    if names and config.trainer.get("enable_progress_bar") is False:
        raise ConfigError(
            f"trainer.enable_progress_bar: false, but callbacks.{names[0]} is a progress bar; set "
            f"callbacks.{names[0]}=null too"
        )
