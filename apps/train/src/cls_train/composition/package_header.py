"""Find files of config groups whose settings land in the wrong section.

A file of `experiment/` sets keys from the top of the configuration only with the line
`# @package _global_`. Without it, Hydra puts its settings below the key `experiment`.
"""

from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf

from cls_train.composition.config import RunConfig
from cls_train.errors import ConfigError

_DEFAULT_PACKAGE = "_global_"


def check_package_headers(composed: DictConfig, loader: ConfigLoaderImpl) -> None:
    """Check the chosen files of groups that have no section in the configuration.

    Args:
        composed: What Hydra has composed, with its own settings.
        loader: Where the files are found.

    Raises:
        ConfigError: A file lacks the line `# @package …` that other choices of its group have.
    """
    choices = OmegaConf.select(composed, "hydra.runtime.choices") or {}
    for group, choice in choices.items():
        if group in RunConfig.model_fields or group not in composed or choice is None:
            continue
        found = loader.repository.load_config(f"{group}/{choice}")
        if found is None or found.header.get("package"):
            continue
        package = _find_usual_package(str(group), str(choice), loader)
        folder = Path(found.path.removeprefix("file://"))
        file = folder / str(group) / f"{str(choice).removesuffix('.yaml')}.yaml"
        raise ConfigError(f"{file}: add '# @package {package}' as its first line")


def _find_usual_package(group: str, choice: str, loader: ConfigLoaderImpl) -> str:
    """Return the package that the other choices of a group name."""
    for other in loader.get_group_options(group):
        if other == choice:
            continue
        found = loader.repository.load_config(f"{group}/{other}")
        if found is not None and found.header.get("package"):
            return str(found.header["package"])
    return _DEFAULT_PACKAGE
