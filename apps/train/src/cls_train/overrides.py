"""What Hydra says of a command line that it cannot compose, in words that help."""

import re
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from cls_train.errors import ConfigError, did_you_mean
from cls_train.targets import parameters


def explain(error: HydraException, config_dir: Path) -> str:
    """Return a message for a failed composition; for an unknown key it names the nearest one that exists."""
    found = re.search(r"Could not override '([^']+)'", str(error))
    if found is None:
        return str(error)
    key = found[1]
    base = _base(config_dir)
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(base, parent) if parent else base
    if isinstance(node, DictConfig) and _takes(node, name, parent):
        return f"{key}: not set in this configuration yet; to add it, write +{key}=VALUE"
    siblings = [str(sibling) for sibling in node] if isinstance(node, DictConfig) else []
    if siblings:
        return f"{key}: unknown key; {did_you_mean(name, siblings)}"
    return f"{key}: unknown key; {did_you_mean(key, _dotted(base))}"


def _base(config_dir: Path) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        return compose("config")


def _takes(node: DictConfig, name: str, path: str) -> bool:
    target = OmegaConf.select(node, "_target_")
    if target is None:
        return False
    try:
        known = parameters(str(target), path)
    except ConfigError:
        return False
    return known is not None and name in known


def _dotted(node: DictConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key in map(str, node):
        keys.append(f"{prefix}{key}")
        child = None if OmegaConf.is_missing(node, key) else node.get(key)
        if isinstance(child, DictConfig):
            keys += _dotted(child, f"{prefix}{key}.")
    return keys
