"""The command line: flags and overrides."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from cls_train.errors import ConfigError

_OTHER_FLAGS = ("hydra_help", "shell_completion", "info")
"""Flags that Hydra answers itself, without running anything."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A parsed command line.

    Attributes:
        overrides: Arguments such as `seed=3`, as they were given.
        help: Print the help page.
        check: Check everything, and stop before the run folder is created.
        multirun: Run every combination of several values.
        cfg: `job`, `hydra`, or `all`: print this part of the configuration.
        resolve: Resolve interpolations in what `cfg` prints.
        package: The key below which `cfg` prints; None for everything.
        config_dir: A folder whose files are found first.
        config_path: A folder to use instead of conf/.
        config_name: A file to use instead of config.yaml.
        asks_hydra: Another flag is set that Hydra answers.
    """

    overrides: tuple[str, ...] = ()
    help: bool = False
    check: bool = False
    multirun: bool = False
    cfg: str | None = None
    resolve: bool = False
    package: str | None = None
    config_dir: str | None = None
    config_path: str | None = None
    config_name: str | None = None
    asks_hydra: bool = False

    @property
    def config_flags(self) -> list[str]:
        """Flags that say where the configuration is, for another command line."""
        values = {
            "--config-dir": self.config_dir,
            "--config-path": self.config_path,
            "--config-name": self.config_name,
        }
        return [f"{flag}={value}" for flag, value in values.items() if value is not None]


def parse_command_line(arguments: Sequence[str]) -> CommandLine:
    """Parse the arguments with Hydra's parser; flags may stand anywhere.

    Raises:
        ConfigError: A flag is unknown, lacks its value, or contradicts another one.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.add_argument("--check", action="store_true")
    parser.error = _raise_config_error  # type: ignore[method-assign]
    options = parser.parse_intermixed_args(list(arguments))

    if options.experimental_rerun is not None:
        raise ConfigError(
            "--experimental-rerun: not supported, because it would run code of the file; "
            "repeat the command with run.name=NAME to resume a run"
        )
    _check_one_task(options)
    return CommandLine(
        overrides=tuple(options.overrides),
        help=options.help,
        check=options.check,
        multirun=options.multirun,
        cfg=options.cfg,
        resolve=options.resolve,
        package=options.package,
        config_dir=options.config_dir,
        config_path=options.config_path,
        config_name=options.config_name,
        asks_hydra=any(getattr(options, name) for name in _OTHER_FLAGS),
    )


def _check_one_task(options: argparse.Namespace) -> None:
    tasks = {
        "--run": options.run,
        "--multirun": options.multirun,
        "--cfg": options.cfg,
        "--info": options.info,
        "--shell-completion": options.shell_completion,
    }
    given = [name for name, value in tasks.items() if value]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: give only one of these flags")
    if options.check and options.cfg:
        raise ConfigError("--check and --cfg: give only one of these flags")


def _raise_config_error(message: str) -> NoReturn:
    raise ConfigError(f"{message}; apps/train --help lists the flags")
