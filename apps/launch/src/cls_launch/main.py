"""The command line: check everything here, then submit."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cls_export.contract.arguments import describe_version
from cls_export.contract.commands import run_command
from cls_export.contract.suggestions import did_you_mean
from cls_launch.errors import LaunchError, LaunchFailedError
from cls_launch.git import read_commit
from cls_launch.help_page import HELP
from cls_launch.images import check_commit, resolve_image
from cls_launch.secret_names import check_rendered, hide_values
from cls_launch.settings import LaunchSettings, check_name, compose_launch
from cls_launch.targets import TARGETS
from cls_launch.targets.target import Job, Target
from cls_launch.training import TrainingRun, compose_training
from cls_train.errors import ConfigError

COMMAND = "apps/launch"

_ACTIONS = ("status", "logs", "stop")
_FLAGS = ("--dry-run", "-m", "--multirun", "-h", "--help", "--version")


@dataclass(frozen=True, slots=True)
class Launch:
    """A parsed command line.

    Attributes:
        settings: Arguments before `--`.
        training: Arguments after it; None without `--`.
        flags: The flags that are given.
        action: `status`, `logs`, or `stop`; None to launch.
        name: The job of the action.
    """

    settings: tuple[str, ...]
    training: tuple[str, ...] | None
    flags: frozenset[str]
    action: str | None = None
    name: str | None = None


def main(repository: Path) -> int:
    """Run the command line, and return the exit code.

    Args:
        repository: The checkout with conf/.
    """
    arguments = sys.argv[1:]
    return run_command(
        COMMAND,
        lambda: _run_without_secrets(arguments, repository),
        wrong_input=(LaunchError, ConfigError),
        failed=(LaunchFailedError,),
    )


def parse(arguments: Sequence[str]) -> Launch:
    """Parse the command line.

    Raises:
        LaunchError: A flag or an action is unknown, or the name of a job is missing.
    """
    before = list(arguments)
    training = None
    if "--" in before:
        index = before.index("--")
        before, training = before[:index], tuple(before[index + 1 :])
    flags, settings, words = set(), [], []
    for argument in before:
        if argument.startswith("-"):
            if argument not in _FLAGS:
                hint = did_you_mean(argument, _FLAGS)
                raise LaunchError(f"{argument:.200}: unknown flag; {hint}")
            flags.add(argument)
        elif "=" in argument or argument.startswith("~"):
            settings.append(argument)
        else:
            words.append(argument)
    if not words:
        return Launch(tuple(settings), training, frozenset(flags))
    if words[0] not in _ACTIONS:
        hint = did_you_mean(words[0], _ACTIONS)
        raise LaunchError(f"{words[0]!r:.200}: expected KEY=VALUE or an action; {hint}")
    if len(words) != 2 or training is not None:
        raise LaunchError(f"expected: apps/launch {words[0]} NAME [target=TARGET]")
    return Launch(tuple(settings), None, frozenset(flags), words[0], words[1])


def _run_without_secrets(arguments: Sequence[str], repository: Path) -> int:
    """Run, and keep values of secrets out of messages."""
    try:
        return _run(arguments, repository)
    except (LaunchError, LaunchFailedError, ConfigError) as error:
        raise type(error)(hide_values(str(error))) from error


def _run(arguments: Sequence[str], repository: Path) -> int:
    launch = parse(arguments)
    config_dir = repository / "conf"
    if launch.flags & {"-h", "--help"}:
        print(HELP.replace("{targets}", ", ".join(TARGETS)))
        return 0
    if "--version" in launch.flags:
        print(describe_version("cls-launch"))
        return 0
    settings, target, target_name = compose_launch(launch.settings, config_dir)
    if launch.action is not None:
        _act(target, launch.action, str(launch.name))
        return 0
    if launch.training is None:
        raise LaunchError(
            "expected -- and the arguments of apps/train, such as: apps/launch run.name=first -- "
            "experiment=jersey_numbers"
        )
    is_sweep = bool(launch.flags & {"-m", "--multirun"})
    runs = compose_training(
        launch.training, settings.run.name, target, config_dir, multirun=is_sweep
    )
    if settings.resources.gpus and any(run.accelerator == "cpu" for run in runs):
        raise LaunchError(
            "trainer.accelerator is cpu, and the job has GPUs (resources.gpus="
            f"{settings.resources.gpus}); set trainer=gpu after --, or resources.gpus=0 before it"
        )
    jobs = _build_jobs(settings, target, target_name, runs, repository)
    rendered = [_check_and_render(target, job) for job in jobs]
    if "--dry-run" in launch.flags:
        print("".join(rendered), end="")
        return 0
    for job in jobs:
        print(target.submit(job), flush=True)
    return 0


def _build_jobs(
    settings: LaunchSettings,
    target: Target[Any],
    target_name: str,
    runs: Sequence[TrainingRun],
    repository: Path,
) -> list[Job]:
    commit = read_commit(repository, allow_dirty=settings.allow_dirty)
    image = _pin_image(settings, commit) if target.needs_image else None
    if not target.needs_image and settings.image is not None:
        raise LaunchError(f"image: target={target_name} runs a checkout; remove image=…")
    return [
        Job(
            name=run.name,
            image=image,
            arguments=run.arguments,
            resources=settings.resources,
            commit=commit,
            environment=settings.environment,
            secrets=settings.secrets,
            labels={"app": "cls-train", **settings.labels},
        )
        for run in runs
    ]


def _pin_image(settings: LaunchSettings, commit: str) -> str:
    text = settings.image
    if text is None:
        raise LaunchError(
            "image is required; set image=REGISTRY/REPOSITORY:TAG, or put it into conf/launch.yaml "
            "(docs/images.md builds one)"
        )
    image = resolve_image(text)
    if image.problem is not None:
        print(
            f"{COMMAND}: the commit of the image was not checked ({image.problem})", file=sys.stderr
        )
    if not settings.allow_other_commit:
        check_commit(image, text, commit)
    return image.reference


def _check_and_render(target: Target[Any], job: Job) -> str:
    target.check(job)
    text = target.render(job)
    check_rendered(f"{job}\n{text}", job.secrets)
    return text


def _act(target: Target[Any], action: str, name: str) -> None:
    try:
        check_name(name)
    except ValueError as error:
        raise LaunchError(str(error)) from error
    if action == "logs":
        for line in target.logs(name):
            print(line)
    elif action == "status":
        print(f"{name}: {target.status(name)}")
    else:
        print(target.stop(name))
