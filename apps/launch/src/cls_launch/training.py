"""Compose and check the arguments of `apps/train` on this machine, as the job will."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import OmegaConf

from cls_launch.errors import LaunchError
from cls_launch.secret_names import check_arguments
from cls_launch.settings import MAX_NAME, check_name
from cls_launch.targets.target import Target
from cls_train.composition.arguments import CommandLine, parse_command_line
from cls_train.composition.check_settings import check_data_root
from cls_train.composition.compose import ComposedRun, Composer
from cls_train.composition.config import RunConfig
from cls_train.main import compose_configs

_INPUTS = ("data.root", "data.quarantine", "data.shards", "distillation.run", "model.init_from")
"""Settings that name files which the job reads."""

_DATA = "cls_data.DataModuleConfig"


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One run that a job will train.

    Attributes:
        name: The name of the run, which is also that of the job.
        arguments: The arguments of `apps/train`.
        accelerator: The one of the trainer, such as cpu or gpu.
    """

    name: str
    arguments: tuple[str, ...]
    accelerator: str


def compose_training(
    arguments: Sequence[str],
    name: str | None,
    target: Target[Any],
    config_dir: Path,
    *,
    multirun: bool,
) -> list[TrainingRun]:
    """Compose and check every run.

    Args:
        arguments: The arguments after `--`.
        name: `run.name` before `--`; None to take it from `arguments`.
        target: Where the job will run.
        config_dir: The folder of config.yaml.
        multirun: Whether several values are several runs, besides `-m` in `arguments`.

    Raises:
        LaunchError, ConfigError: A setting is wrong, or the job could not reach its files.
    """
    check_arguments(arguments)
    command = parse_command_line(arguments)
    _check_flags(command)
    is_sweep = multirun or command.multirun
    command = CommandLine(command.overrides, multirun=is_sweep)
    composed = compose_configs(command, Composer(config_dir, command))
    names = _choose_names(name, composed, command.overrides)
    runs: list[TrainingRun] = []
    for run_name, (config, run) in zip(names, composed, strict=True):
        if target.is_remote:
            _check_reachable(config, run, target.list_mounted_folders())
        else:
            check_data_root(config)
        others = [item for item in run.overrides if not item.startswith("run.name=")]
        run_arguments = (*others, f"run.name={run_name}")
        runs.append(TrainingRun(run_name, run_arguments, str(config.trainer.get("accelerator"))))
    return runs


def _check_flags(command: CommandLine) -> None:
    flags = {
        "--check": command.check,
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


def _choose_names(
    name: str | None,
    composed: Sequence[tuple[RunConfig, ComposedRun]],
    base: Sequence[str],
) -> list[str]:
    """Return a name for each run; in a sweep, it ends with the swept values."""
    given = {config.run.name for config, _ in composed} - {None}
    if name is not None and given - {name}:
        raise LaunchError(
            f"run.name is {name!r} before -- and {min(map(str, given))!r} after it; give it once"
        )
    if name is None:
        if len(given) != 1:
            raise LaunchError(
                "run.name is required, because a restarted job finds its run by name; set it "
                "before --: apps/launch run.name=NAME -- …"
            )
        (only,) = given
        name = _check_given_name(str(only))
    if len(composed) == 1:
        return [name]
    names = [f"{name}-{_describe_values(run, base)}" for _, run in composed]
    if len(set(names)) < len(names) or max(map(len, names)) > MAX_NAME:
        names = [f"{name}-{number}" for number in range(1, len(composed) + 1)]
    return [_check_given_name(each) for each in names]


def _check_given_name(name: str) -> str:
    try:
        return check_name(name)
    except ValueError as error:
        raise LaunchError(f"run.name: {error}") from error


def _describe_values(run: ComposedRun, base: Sequence[str]) -> str:
    """Return the swept values as a part of a name, such as `seed-1-lr-0-001`."""
    parts = []
    for override in run.overrides:
        if override in base:
            continue
        key, _, value = override.partition("=")
        parts.append(f"{key.rpartition('.')[2]}-{value}")
    text = re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower())
    return text.strip("-") or "1"


def _check_reachable(config: RunConfig, run: ComposedRun, mounted: Sequence[str]) -> None:
    """Check that a job on another machine can read its data and keep its run."""
    if config.data.get("_target_") == _DATA:
        rendered = config.data.get("synthetic") is not None
        for key in _INPUTS:
            value = OmegaConf.select(run.settings, key)
            if not isinstance(value, str) or (key == "data.root" and rendered):
                continue
            if not _is_reachable(value, mounted):
                raise LaunchError(f"{key}: {_describe_unreachable(value, mounted)}")

    if config.run.remote is None:
        if _is_reachable(str(run.settings.run.root), mounted):
            return
        raise LaunchError(
            "run.remote is required, because the files of the job's machine are lost when it ends; "
            "set run.remote=gs://BUCKET/runs (or s3://) after --"
        )
    if not _is_reachable(str(run.settings.run.remote), mounted):
        value = str(run.settings.run.remote)
        raise LaunchError(f"run.remote: {_describe_unreachable(value, mounted)}")


def _is_reachable(path: str, mounted: Sequence[str]) -> bool:
    if "://" in path:
        return not path.startswith("file://")
    if not path.startswith("/"):
        return False
    return any(PurePosixPath(path).is_relative_to(folder) for folder in mounted)


def _describe_unreachable(path: str, mounted: Sequence[str]) -> str:
    folders = f", or a folder below {' or '.join(mounted)}" if mounted else ""
    return (
        f"{path!r:.300} is a folder of this machine, which the job does not see; expected a URL "
        f"such as gs://BUCKET/FOLDER{folders}"
    )
