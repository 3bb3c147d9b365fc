"""Refuse settings of Hydra itself that this app does not use.

Hydra would build callbacks, launchers, and sweepers, and set environment variables, before the
configuration is checked. This app only lets Hydra compose, so such settings have no effect.
"""

from omegaconf import DictConfig, OmegaConf

from cls_export.contract.suggestions import did_you_mean
from cls_train.errors import ConfigError

ALLOWED = ("hydra.searchpath", "hydra.sweeper.params", "hydra.mode")

_INSTEAD = {
    "hydra.callbacks": "use the group callbacks",
    "hydra.job.env_set": "set environment variables before the command",
    "hydra.job.env_copy": "set environment variables before the command",
    "hydra.job.chdir": "set run.root to choose where the run folder is created",
    "hydra.run": "set run.root and run.name instead",
    "hydra.sweep": "set run.root and run.name instead",
    "hydra.output_subdir": "config.yaml of the run folder has the whole configuration",
    "hydra.launcher": "the runs of a sweep follow one another in this process",
    "hydra.sweeper": "a sweep tries all combinations of its values",
    "hydra.verbose": "the app logs to the terminal and to the run folder",
}

_BASIC_TARGETS = {
    "hydra.launcher": "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra.sweeper": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
}

_UNUSED_SECTIONS = ("hydra.callbacks", "hydra.job.env_set", "hydra.job.env_copy")


def is_hydra_key(key: str) -> bool:
    """Whether a key or group belongs to Hydra."""
    return key == "hydra" or key.startswith(("hydra.", "hydra/"))


def check_hydra_key(key: str) -> None:
    """Check a key of Hydra that the command line sets.

    Raises:
        ConfigError: The key is not on the list of allowed ones.
    """
    path = key.replace("/", ".")
    for allowed in ALLOWED:
        if path == allowed or path.startswith(f"{allowed}."):
            return
    raise ConfigError(_describe(key))


def check_hydra_node(composed: DictConfig) -> None:
    """Check the settings of Hydra in the YAML files.

    Raises:
        ConfigError: They name something to execute.
    """
    for path in _UNUSED_SECTIONS:
        if OmegaConf.select(composed, path):
            raise ConfigError(_describe(path))

    for path, basic in _BASIC_TARGETS.items():
        target = OmegaConf.select(composed, f"{path}._target_")
        if target not in (None, basic):
            raise ConfigError(_describe(path))


def _describe(key: str) -> str:
    path = key.replace("/", ".")
    for prefix, advice in _INSTEAD.items():
        if path == prefix or path.startswith(f"{prefix}."):
            return f"{key}: {advice}; this setting of Hydra is not supported"

    hint = did_you_mean(path, ALLOWED)
    return f"{key}: this setting of Hydra is not supported; {hint}"
