"""Check the nodes of a configuration without building them."""

import importlib.util

from cls_export.contract.suggestions import did_you_mean
from cls_models import VALIDATION_METRICS
from cls_train.builders.callbacks import check_metric
from cls_train.composition.config import Monitor, RunConfig
from cls_train.composition.instantiate import check_node
from cls_train.composition.trainer_flags import check_trainer_flags
from cls_train.errors import ConfigError

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
    "callbacks",
    "logger",
)


def check_nodes(config: RunConfig) -> None:
    """Check every `_target_`, argument name, and allowed package, and the monitored metric.

    Also check the values of the trainer's flags.

    Raises:
        ConfigError: The message names the key path.
    """
    for package in config.allow_targets:
        top_level, _, _ = package.partition(".")
        if importlib.util.find_spec(top_level) is None:
            raise ConfigError(f"allow_targets: the package {package!r} is not installed")

    for name in NODES:
        node = getattr(config, name)
        check_node(node, name, config.allow_targets)

    check_trainer_flags(config.trainer)
    _check_monitor(config.monitor)


def _check_monitor(monitor: Monitor) -> None:
    metric, mode = monitor.metric, monitor.mode
    if metric not in VALIDATION_METRICS:
        raise ConfigError(
            f"monitor.metric: {metric!r} is not logged; {did_you_mean(metric, VALIDATION_METRICS)}"
        )
    check_metric(metric, mode, "monitor.metric", "monitor.mode")
