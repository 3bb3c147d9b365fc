"""Compose the command line once before Hydra does, to explain errors and refuse unsafe settings."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from cls_export.contract.suggestions import did_you_mean
from cls_train.composition.renames import (
    describe_renamed_key,
    find_renamed_key,
    find_renamed_parameter,
)
from cls_train.composition.targets import parameter_names, resolve_target
from cls_train.errors import ConfigError

_HYDRA_PACKAGE = "hydra._internal."


def check_command_line(arguments: Sequence[str], config_dir: Path) -> None:
    """Compose what the arguments ask for, without running anything.

    Raises:
        ConfigError: A key or choice is unknown, or Hydra would build an object before this app
            has checked the configuration.
    """
    overrides = [argument for argument in arguments if _is_override(argument)]
    for variant in _sweep_variants(overrides):
        composed = _compose(variant, config_dir)
        _check_hydra_targets(composed)


def _is_override(argument: str) -> bool:
    if re.match(r"[~+A-Za-z_]", argument) is None:
        return False
    deletes_key = argument.startswith("~")
    return deletes_key or "=" in argument


def _sweep_variants(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Yield lists of overrides that contain each value of each sweep (`seed=1,2`) at least once."""
    if not overrides:
        yield []
        return

    choices = [_sweep_values(override) for override in overrides]
    for row in zip_longest(*choices):
        variant = []
        for value, values in zip(row, choices, strict=True):
            variant.append(value or values[0])
        yield variant


def _sweep_values(override: str) -> list[str]:
    key, equals, value = override.partition("=")
    has_brackets_or_quotes = re.search(r"[\[\]{}()'\"]", value)
    if not equals or has_brackets_or_quotes:
        return [override]

    values = value.split(",")
    return [f"{key}={item}" for item in values]


def _compose(overrides: list[str], config_dir: Path) -> DictConfig:
    GlobalHydra.instance().clear()

    with initialize_config_dir(str(config_dir), version_base="1.3"):
        try:
            return compose("config", overrides=overrides, return_hydra_config=True)
        except HydraException as error:
            raise ConfigError(_explain_hydra_error(error, overrides, config_dir)) from error
        except ValueError as error:  # Hydra's error for GROUP=null and GROUP=3
            message = _explain_unknown_choices(overrides, config_dir)
            raise ConfigError(message or str(error)) from error


def _is_group(override: str, config_dir: Path) -> bool:
    group, _, _ = override.partition("=")
    return (config_dir / group).is_dir()


def _explain_unknown_choices(overrides: list[str], config_dir: Path) -> str:
    lines = []
    for override in overrides:
        group, _, choice = override.partition("=")
        if not _is_group(override, config_dir):
            continue

        files = (config_dir / group).glob("*.yaml")
        choices = sorted(path.stem for path in files)
        if choice in choices:
            continue

        line = f"{group}: {choice!r} is not a choice; choices are {', '.join(choices)}"
        if "none" in choices:
            line += f"; to turn it off, set {group}=none"
        lines.append(line)
    return "; ".join(lines)


def _check_hydra_targets(composed: DictConfig) -> None:
    settings = composed.hydra
    if settings.callbacks:
        raise ConfigError(
            "hydra.callbacks: Hydra would build these before the configuration is checked; "
            "use the group callbacks"
        )
    for name in settings:
        node = None if OmegaConf.is_missing(settings, name) else settings.get(name)
        target = node.get("_target_") if isinstance(node, DictConfig) else None
        if target is not None and not str(target).startswith(_HYDRA_PACKAGE):
            raise ConfigError(
                f"hydra.{name}._target_: {target!r} is not allowed here; "
                "only Hydra's own classes are"
            )


def _explain_hydra_error(error: HydraException, overrides: list[str], config_dir: Path) -> str:
    """Return Hydra's message, or for an unknown key a message that names the closest valid key."""
    match = re.search(r"Could not override '([^']+)'", str(error))
    if match is None:
        return str(error)

    key = match[1]
    group_choices = [override for override in overrides if _is_group(override, config_dir)]
    base = _compose(group_choices, config_dir)
    new_key = find_renamed_key(key) or _find_renamed_parameter_path(base, key)
    if new_key is not None:
        message = describe_renamed_key(key, new_key)
        is_set = OmegaConf.select(base, new_key) is not None
        return message if is_set else f"{message}; write +{new_key}=VALUE"

    parent, name = _split_at_existing_node(base, key)
    node = OmegaConf.select(base, parent) if parent else base
    parameters = _find_parameters(node, parent, base)
    if parameters is not None and name in parameters:
        return f"{key}: not set in this configuration yet; to add it, write +{key}=VALUE"

    if not parent and "." in key:
        valid_keys = _without_hydra(_dotted_keys(base))
        return f"{key}: unknown key; {did_you_mean(key, valid_keys)}"

    valid_names = parameters or _without_hydra(map(str, node))
    return f"{key}: unknown key; {did_you_mean(name, valid_names)}"


def _split_at_existing_node(base: DictConfig, key: str) -> tuple[str, str]:
    """Return the longest prefix of a key that is a node, and the name that follows it."""
    names = key.split(".")
    for length in range(len(names) - 1, 0, -1):
        path = ".".join(names[:length])
        if isinstance(OmegaConf.select(base, path), DictConfig):
            return path, names[length]
    return "", names[0]


def _find_renamed_parameter_path(base: DictConfig, key: str) -> str | None:
    """Return the key with its first renamed constructor parameter replaced; None without one."""
    names = key.split(".")

    for index in range(1, len(names)):
        parent = ".".join(names[:index])
        node = OmegaConf.select(base, parent)
        if not isinstance(node, DictConfig) or "_target_" not in node:
            continue

        target = str(node["_target_"])
        new_name = find_renamed_parameter(target, names[index])
        if new_name is not None:
            rest = names[index + 1 :]
            return ".".join([parent, new_name, *rest])

    return None


def _find_parameters(node: DictConfig, path: str, base: DictConfig) -> frozenset[str] | None:
    """Return the parameter names of the node's `_target_`; None without a usable target."""
    target = OmegaConf.select(node, "_target_")
    if target is None:
        return None

    allow_targets = base.get("allow_targets") or ()
    try:
        return parameter_names(resolve_target(target, path, allow_targets))
    except ConfigError:
        return None


def _without_hydra(keys: Iterable[str]) -> list[str]:
    remaining = []
    for key in keys:
        first, _, _ = key.partition(".")
        if first != "hydra":
            remaining.append(key)
    return remaining


def _dotted_keys(node: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for name in map(str, node):
        keys.append(prefix + name)
        if OmegaConf.is_missing(node, name):
            continue
        child = node.get(name)
        if isinstance(child, DictConfig):
            keys += _dotted_keys(child, f"{prefix}{name}.")
    return keys
