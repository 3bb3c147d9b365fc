"""The command line, composed once beforehand: to refuse what Hydra would run itself, and to explain what it refuses."""

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from cls_export.contract.suggestions import did_you_mean
from cls_train.composition.instantiate import parameters
from cls_train.errors import ConfigError

_HYDRAS_OWN = "hydra._internal."


def check_command_line(arguments: Sequence[str], config_dir: Path) -> None:
    """Compose what the arguments ask for, without running anything.

    Raises:
        ConfigError: an unknown key or choice (the nearest one is named), or something that Hydra itself would build
            before this app sees the configuration.
    """
    overrides = [
        argument
        for argument in arguments
        if re.match(r"[~+A-Za-z_]", argument) and _is_override(argument)
    ]
    for variant in _variants(overrides):
        _refuse_foreign_hydra_targets(_compose(variant, config_dir))


def _is_override(argument: str) -> bool:
    return "=" in argument or argument.startswith("~")


def _variants(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Yield overrides such that each value of each sweep (`seed=1,2`) is composed at least once."""
    values = [_sweep(override) for override in overrides]
    for row in zip_longest(*values):
        yield [choice or options[0] for choice, options in zip(row, values, strict=True)]
    if not values:
        yield []


def _sweep(override: str) -> list[str]:
    key, equals, value = override.partition("=")
    if not equals or re.search(r"[\[\]{}()'\"]", value):
        return [override]
    return [f"{key}={part}" for part in value.split(",")]


def _compose(overrides: list[str], config_dir: Path) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        try:
            return compose("config", overrides=overrides, return_hydra_config=True)
        except HydraException as error:
            raise ConfigError(_explain(error, overrides, config_dir)) from error
        except ValueError as error:  # what Hydra says of GROUP=null or GROUP=3
            wrong = [
                o
                for o in overrides
                if _is_group(o, config_dir) and not (config_dir / _file_of(o)).exists()
            ]
            raise ConfigError(
                "; ".join(_no_choice(override, config_dir) for override in wrong) or str(error)
            ) from error


def _is_group(override: str, config_dir: Path) -> bool:
    return (config_dir / override.partition("=")[0]).is_dir()


def _file_of(override: str) -> str:
    group, _, choice = override.partition("=")
    return f"{group}/{choice}.yaml"


def _no_choice(override: str, config_dir: Path) -> str:
    group, _, choice = override.partition("=")
    choices = sorted(path.stem for path in (config_dir / group).glob("*.yaml"))
    off = f"; to switch it off: {group}=none" if "none" in choices else ""
    return f"{group}: {choice!r} is not a choice; choices are {', '.join(choices)}{off}"


def _refuse_foreign_hydra_targets(composed: DictConfig) -> None:
    settings = composed.hydra
    if settings.callbacks:
        raise ConfigError(
            "hydra.callbacks: Hydra would build these before anything is checked; use the group callbacks"
        )
    for name in settings:
        node = settings.get(name) if not OmegaConf.is_missing(settings, name) else None
        target = node.get("_target_") if isinstance(node, DictConfig) else None
        if target is not None and not str(target).startswith(_HYDRAS_OWN):
            raise ConfigError(
                f"hydra.{name}._target_: {target!r} may not be built; only Hydra's own may"
            )


def _explain(error: HydraException, overrides: list[str], config_dir: Path) -> str:
    """Say what is wrong with the command line; for an unknown key, name the nearest one that exists."""
    found = re.search(r"Could not override '([^']+)'", str(error))
    if found is None:
        return str(error)
    key = found[1]
    base = _compose(
        [override for override in overrides if _is_group(override, config_dir)], config_dir
    )
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(base, parent) if parent else base
    if isinstance(node, DictConfig) and (known := _known(node, parent)):
        if name in known:
            return f"{key}: not set in this configuration yet; to add it, write +{key}=VALUE"
        return f"{key}: unknown key; {did_you_mean(name, known)}"
    if isinstance(node, DictConfig):
        return f"{key}: unknown key; {did_you_mean(name, [str(sibling) for sibling in node if sibling != 'hydra'])}"
    return f"{key}: unknown key; {did_you_mean(key, [k for k in _dotted(base) if not k.startswith('hydra')])}"


def _known(node: DictConfig, path: str) -> frozenset[str] | None:
    """Return what the node's `_target_` takes, or None."""
    target = OmegaConf.select(node, "_target_")
    if target is None:
        return None
    try:
        return parameters(str(target), path)
    except ConfigError:
        return None


def _dotted(node: DictConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key in map(str, node):
        keys.append(f"{prefix}{key}")
        child = None if OmegaConf.is_missing(node, key) else node.get(key)
        if isinstance(child, DictConfig):
            keys += _dotted(child, f"{prefix}{key}.")
    return keys
