"""Answer `--cfg`, `--info`, `--hydra-help`, and `--shell-completion`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import main as hydra_main
from hydra.core.global_hydra import GlobalHydra
from omegaconf import Container, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cls_train.composition.arguments import CommandLine
from cls_train.composition.compose import HYDRA_VERSION_BASE, Composer, explained_hydra_errors
from cls_train.composition.config import describe_omegaconf_error
from cls_train.errors import ConfigError


def print_information(command: CommandLine, arguments: Sequence[str], config_dir: Path) -> int:
    """Print what a flag asks for, without running anything, and return the exit code.

    Args:
        command: The parsed command line.
        arguments: The same as it was given.
        config_dir: The app's folder of YAML files.

    Raises:
        ConfigError: The configuration does not compose.
    """
    composer = Composer(config_dir, command)
    if command.cfg == "job":
        (run,) = composer.compose_runs(command.overrides, multirun=False)
        _print_yaml(run.settings, command)
        return 0

    is_query = "--shell-completion" in arguments or "-sc" in arguments
    known = command.overrides if is_query else composer.add_plus(command.overrides)
    flags = [argument for argument in arguments if argument not in command.overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them
    sys.argv[1:] = [*flags, *known]
    GlobalHydra.instance().clear()
    decorate = hydra_main(
        version_base=HYDRA_VERSION_BASE, config_path=str(config_dir), config_name="config"
    )
    with explained_hydra_errors():
        decorate(_do_nothing)()
    return 0


def _do_nothing(_: object) -> None:
    """Stand for the task: Hydra answers a flag without calling it."""


def _print_yaml(settings: Container, command: CommandLine) -> None:
    try:
        if command.resolve:
            OmegaConf.resolve(settings)
        package = command.package
        part = OmegaConf.select(settings, package) if package else settings
    except OmegaConfBaseException as error:
        raise ConfigError(describe_omegaconf_error(error)) from error
    if part is None:
        raise ConfigError(f"--package: there is no {command.package}")
    text = OmegaConf.to_yaml(part) if isinstance(part, Container) else f"{part}\n"
    sys.stdout.write(text)
