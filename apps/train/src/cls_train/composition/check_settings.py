"""Check a configuration before PyTorch is imported.

Classes are looked up in source files. Where that is not enough, `instantiate.check_node` decides
after the import.
"""

import importlib.util
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cls_export.contract.suggestions import did_you_mean
from cls_models import BACKBONES, VALIDATION_METRICS
from cls_train.composition.config import Node, RunConfig
from cls_train.composition.key_suggestions import KeySuggestions
from cls_train.composition.node_arguments import TARGET, find_argument_problems
from cls_train.composition.signatures import read_signature
from cls_train.composition.source_modules import MissingNameError, find_definition
from cls_train.composition.targets import check_target_name, describe_missing_name
from cls_train.composition.trainer_flags import check_flag_values
from cls_train.errors import ConfigError

Suggest = Callable[[str, Iterable[str]], str]
"""Returns a hint for an unknown key path, from the valid names in its place."""

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
"""Settings that are one node each."""

NODE_GROUPS = ("callbacks", "logger")
"""Settings that hold nodes by name."""

_LARGEST = 2**63 - 1
"""PyTorch and numpy hold integers in 64 bits."""

_DATA = "cls_data.DataModuleConfig"
_DOWNLOADED_MODELS = "cls_models.build_backbone"


def check_settings(config: RunConfig, choices: Mapping[str, Sequence[str]]) -> None:
    """Check every target, argument name, and value that can be checked without building anything.

    Args:
        config: A validated configuration.
        choices: The choices of each config group, for suggestions.

    Raises:
        ConfigError: One line for each problem, with its key path.
    """
    _check_packages(config.allow_targets)
    suggest = KeySuggestions(config.model_dump(), RunConfig.model_fields).suggest
    problems = []
    for name in NODES:
        node = getattr(config, name)
        if node is None:
            continue
        if TARGET not in node:
            raise ConfigError(_describe_empty_group(name, node, choices.get(name, ())))
        problems += _find_node_problems(node, name, config.allow_targets, suggest)

    for group in NODE_GROUPS:
        nodes = getattr(config, group)
        for name, node in nodes.items():
            if node and TARGET not in node:
                raise ConfigError(_describe_missing_target(f"{group}.{name}", node, nodes))
            problems += _find_node_problems(node, f"{group}.{name}", config.allow_targets, suggest)

    problems += _find_monitor_problems(config)
    problems += _find_model_problems(config.model)
    problems += _find_trainer_problems(config.trainer, problems)
    if problems:
        raise ConfigError("\n".join(problems))


def check_data_root(config: RunConfig) -> None:
    """Check that the folder of images exists, before the slow imports. URLs are not read.

    Raises:
        ConfigError: It does not exist, and is not rendered first.
    """
    root = config.data.get("root")
    is_read = config.data.get(TARGET) == _DATA and not config.data.get("synthetic")
    if not is_read or not isinstance(root, str) or "://" in root:
        return
    if not os.path.isdir(root):  # noqa: PTH112, Path.is_dir raises errors
        is_off = "synthetic" in config.data
        reason = "no such folder, and data.synthetic is null" if is_off else "no such folder"
        raise ConfigError(f"data.root: {root!r:.500}: {reason}; name the folder of images")


def has_remote_data(config: RunConfig) -> bool:
    """Whether images or a quarantine are fetched from a URL first."""
    paths = (config.data.get("root"), config.data.get("quarantine"))
    has_url = any(isinstance(path, str) and "://" in path for path in paths)
    return config.data.get(TARGET) == _DATA and has_url


def _check_packages(packages: Sequence[str]) -> None:
    for package in packages:
        top_level, _, _ = package.partition(".")
        if importlib.util.find_spec(top_level) is None:
            raise ConfigError(
                f"allow_targets: the package {package!r} is not installed; install it, or add its "
                "folder to PYTHONPATH"
            )


def _find_node_problems(
    node: Any, path: str, allow_targets: Sequence[str], suggest: Suggest
) -> list[str]:
    """Return the problems of a value and of everything nested in it."""
    if isinstance(node, (int, float)) and not isinstance(node, bool):
        return _find_number_problems(node, path)
    problems = []
    if isinstance(node, list):
        for index, item in enumerate(node):
            problems += _find_node_problems(item, f"{path}.{index}", allow_targets, suggest)
        return problems
    if not isinstance(node, dict):
        return []

    for key, item in node.items():
        if not isinstance(key, str):
            return [f"{path}: expected names as keys, got {key!r:.100}"]
        problems += _find_node_problems(item, f"{path}.{key}", allow_targets, suggest)
    if TARGET in node:
        problems += _find_target_problems(node, path, allow_targets, suggest)
    return problems


def _find_target_problems(
    node: Mapping[str, Any], path: str, allow_targets: Sequence[str], suggest: Suggest
) -> list[str]:
    target = node[TARGET]
    target_path = f"{path}.{TARGET}"
    check_target_name(target, target_path, allow_targets)
    try:
        definition = find_definition(target)
    except MissingNameError as error:
        message = describe_missing_name(error.container, error.name, error.valid)
        return [f"{target_path}: {message}"]
    signature = None if definition is None else read_signature(definition)
    if signature is None:
        return []
    _, _, name = target.rpartition(".")
    return find_argument_problems(node, path, name, signature, suggest)


def _find_number_problems(number: float, path: str) -> list[str]:
    if isinstance(number, float) and not math.isfinite(number):
        return [f"{path}: expected a finite number, got {number}"]
    if isinstance(number, int) and abs(number) > _LARGEST:
        return [f"{path}: expected a number of at most 64 bits, got {str(number)[:40]}…"]
    return []


def _find_monitor_problems(config: RunConfig) -> list[str]:
    metric, mode = config.monitor.metric, config.monitor.mode
    if metric not in VALIDATION_METRICS:
        hint = did_you_mean(metric, VALIDATION_METRICS)
        return [f"monitor.metric: {metric!r:.200} is not logged; {hint}"]

    expected_mode = "min" if metric.endswith("_loss") else "max"
    if mode == expected_mode:
        return []
    return [
        f"monitor.mode: {mode!r} would select the worst {metric}; set monitor.mode={expected_mode}"
    ]


def _find_model_problems(model: Mapping[str, Any]) -> list[str]:
    name = model.get("name")
    if model.get(TARGET) != _DOWNLOADED_MODELS or not isinstance(name, str) or name in BACKBONES:
        return []
    return [f"model.name: unknown backbone {name!r:.200}; {did_you_mean(name, BACKBONES)}"]


def _find_trainer_problems(trainer: Node, earlier: Sequence[str]) -> list[str]:
    """Check the values of the trainer's flags, unless their names or types are wrong."""
    if any(problem.startswith("trainer.") for problem in earlier):
        return []
    try:
        check_flag_values(trainer)
    except ConfigError as error:
        return [str(error)]
    return []


def _describe_empty_group(name: str, node: Mapping[str, Any], choices: Sequence[str]) -> str:
    first_key = next(iter(node), None)
    usable = [choice for choice in choices if choice != "none"]
    if first_key is None or not usable:
        return f"{name}: nothing is chosen; set {name}=NAME, one of: {', '.join(usable)}"
    return (
        f"{name}.{first_key}: {name} is none; choose one first, such as {name}={usable[0]} "
        f"(choices: {', '.join(usable)})"
    )


def _describe_missing_target(
    path: str, node: Mapping[str, Any], siblings: Mapping[str, Any]
) -> str:
    _, _, name = path.partition(".")
    others = [key for key in siblings if key != name]
    return (
        f"{path}: unknown name; {did_you_mean(name, others)}. To add it, set "
        f"{path}.{TARGET}=CLASS, besides {dict(node)!r:.200}"
    )
