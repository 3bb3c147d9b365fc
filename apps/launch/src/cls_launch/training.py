"""Compose and check the arguments of `apps/train` on this machine, as the job will."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import OmegaConf

from cls_launch.devices import check_devices
from cls_launch.errors import LaunchError
from cls_launch.jobs import raise_refused
from cls_launch.run_names import choose_names, split_arguments
from cls_launch.secret_names import check_arguments
from cls_launch.settings import LaunchSettings
from cls_launch.targets.target import Target
from cls_train.composition.arguments import CommandLine, parse_command_line
from cls_train.composition.check_settings import check_data_root
from cls_train.composition.compose import ComposedRun, Composer
from cls_train.composition.config import RunConfig
from cls_train.composition.overrides import parse_overrides
from cls_train.errors import ConfigError
from cls_train.main import compose_configs

_INPUTS = {
    "data.root": True,
    "data.quarantine": True,
    "data.shards": True,
    "distillation.run": False,
    "model.init_from": False,
}
"""Settings that name what the job reads, and whether `apps/train` reads URLs there."""

_DATA = "cls_data.DataModuleConfig"
_WANDB_LOGGER = ".WandbLogger"
_WANDB_KEY = "WANDB_API_KEY"


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One run that a job will train.

    Attributes:
        name: The name of the run, which is also that of the job.
        arguments: The arguments of `apps/train`.
    """

    name: str
    arguments: tuple[str, ...]


def compose_training(
    arguments: Sequence[str],
    settings: LaunchSettings,
    target: Target[Any],
    config_dir: Path,
    *,
    multirun: bool,
) -> list[TrainingRun]:
    """Compose and check every run.

    Args:
        arguments: The arguments after `--`.
        settings: The settings before `--`.
        target: Where the job will run.
        config_dir: The folder of config.yaml.
        multirun: Whether several values are several runs, besides `-m` in `arguments`.

    Raises:
        LaunchError, ConfigError: A setting is wrong, or a job could not reach its files, or has
            other devices than its trainer. The message names all runs that are refused.
    """
    check_arguments(arguments)
    command = parse_command_line(arguments)
    _check_flags(command)
    is_sweep = multirun or command.multirun
    command = CommandLine(command.overrides, multirun=is_sweep)
    composer = Composer(config_dir, command)
    composed = compose_configs(command, composer)
    fixed = _find_fixed(command.overrides, composer)
    run_arguments = [split_arguments(run, fixed) for _, run in composed]
    names = choose_names(settings.run.name, [config for config, _ in composed], run_arguments)
    runs: list[TrainingRun] = []
    refused = {}
    for run_name, (config, run), each in zip(names, composed, run_arguments, strict=True):
        try:
            check_devices(config.trainer, settings.resources)
            if target.needs_image:
                _check_logger_key(config, settings)
            if target.is_remote:
                _check_reachable(config, run, target)
            else:
                check_data_root(config)
        except (LaunchError, ConfigError) as error:
            refused[run_name] = str(error)
        others = [item for item in each.all if not item.startswith("run.name=")]
        runs.append(TrainingRun(run_name, (*others, f"run.name={run_name}")))
    raise_refused(refused, len(composed))
    return runs


def _find_fixed(arguments: Sequence[str], composer: Composer) -> dict[str, str]:
    """Return the arguments with one value, by their keys."""
    fixed: dict[str, str] = {}
    overrides = parse_overrides(arguments, composer.loader)
    for argument, override in zip(arguments, overrides, strict=True):
        key, _, _ = argument.partition("=")
        if override.is_sweep_override():
            fixed.pop(key, None)
        else:
            fixed[key] = argument
    return fixed


def _check_flags(command: CommandLine) -> None:
    if command.check:
        raise LaunchError(
            "--check: a job trains, and its arguments are checked here anyway; to check the data "
            "too, give these arguments to apps/train with --check"
        )
    flags = {
        "--help": command.help,
        "--cfg": command.cfg is not None or command.asks_hydra,
        "--config-dir, --config-path, and --config-name": bool(command.config_flags),
    }
    for flag, is_given in flags.items():
        if is_given:
            raise LaunchError(
                f"{flag}: not possible after --, because a job trains from the files of its image; "
                "use it with apps/train"
            )


def _check_logger_key(config: RunConfig, settings: LaunchSettings) -> None:
    """Check that a job has the key of W&B, whose login stays on this machine."""
    has_logger = any(
        str((node or {}).get("_target_")).endswith(_WANDB_LOGGER) for node in config.logger.values()
    )
    is_offline = settings.environment.get("WANDB_MODE") in ("offline", "disabled")
    if has_logger and not is_offline and _WANDB_KEY not in settings.secrets:
        raise LaunchError(
            f"logger=wandb needs a key in the job: add secrets={{{_WANDB_KEY}: NAME}} before -- "
            "(see docs/cloud.md), or environment.WANDB_MODE=offline"
        )


def _check_reachable(config: RunConfig, run: ComposedRun, target: Target[Any]) -> None:
    """Check that a job on another machine can read its data and keep its run."""
    mounted = target.list_mounted_folders()
    if config.data.get("_target_") == _DATA:
        rendered = config.data.get("synthetic") is not None
        for key, may_be_url in _INPUTS.items():
            value = OmegaConf.select(run.settings, key)
            if not isinstance(value, str) or (key == "data.root" and rendered):
                continue
            if not _is_reachable(value, mounted, may_be_url):
                raise LaunchError(f"{key}: {_describe_unreachable(value, target, may_be_url)}")

    remote = run.settings.run.remote
    if remote is None and not _is_reachable(str(run.settings.run.root), mounted, False):
        raise LaunchError(
            "run.remote is required, because the files of the job's machine are lost when it ends; "
            "set run.remote=gs://BUCKET/runs (or s3://) after --"
        )
    if remote is not None and not _is_reachable(str(remote), mounted, True):
        raise LaunchError(f"run.remote: {_describe_unreachable(str(remote), target, True)}")


def _is_reachable(path: str, mounted: Sequence[str], may_be_url: bool) -> bool:
    if "://" in path:
        return may_be_url and not path.startswith("file://")
    if not path.startswith("/"):
        return False
    return any(PurePosixPath(path).is_relative_to(folder) for folder in mounted)


def _describe_unreachable(path: str, target: Target[Any], may_be_url: bool) -> str:
    expected = []
    if may_be_url:
        expected.append("a URL such as gs://BUCKET/NAME")
    if target.mount_setting is not None:
        folders = " or ".join(target.list_mounted_folders()) or "a folder"
        expected.append(f"a path below {folders} of {target.mount_setting}")
    if "://" in path and not path.startswith("file://"):
        problem = "is a URL, and apps/train reads this from a disk"
    else:
        problem = "is a path of this machine, which the job does not see"
    if not expected:
        return f"{path!r:.300} {problem}, and this target mounts no folders; remove it"
    return f"{path!r:.300} {problem}; expected {', or '.join(expected)}"
