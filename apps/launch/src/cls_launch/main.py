"""The command line: check everything here, then submit."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cls_export.contract.arguments import describe_version
from cls_export.contract.commands import run_command
from cls_export.contract.suggestions import did_you_mean
from cls_launch.errors import LaunchError, LaunchFailedError
from cls_launch.git import read_commit
from cls_launch.help_page import HELP
from cls_launch.images import check_commit, resolve_image
from cls_launch.jobs import check_jobs, check_names, render_jobs, submit
from cls_launch.secret_names import hide_values
from cls_launch.settings import LaunchSettings, check_name, compose_launch
from cls_launch.targets import TARGETS
from cls_launch.targets.target import Job, Target
from cls_launch.training import TrainingRun, compose_training
from cls_train.errors import ConfigError

COMMAND = "apps/launch"

_ACTIONS = ("status", "logs", "stop")
_DRY_RUN = "--dry-run"
_FLAGS = (_DRY_RUN, "-m", "--multirun", "-h", "--help", "--version")
_ANSWERED_FIRST = {"-h", "--help", "--version"}


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
    if training is not None and _DRY_RUN in training:  # where it is easily appended
        training = tuple(argument for argument in training if argument != _DRY_RUN)
        flags.add(_DRY_RUN)
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
    if not words or flags & _ANSWERED_FIRST:
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
    if launch.action is None and launch.training is None:
        raise LaunchError(
            "expected -- between the settings of the job and the arguments of apps/train, such as: "
            "apps/launch target=slurm run.name=first -- trainer=gpu seed=2"
        )
    settings, target, target_name = compose_launch(launch.settings, config_dir)
    if launch.action is not None:
        is_default = not any(each.startswith("target=") for each in launch.settings)
        with _explained_default(target_name) if is_default else nullcontext():
            _act(target, launch.action, str(launch.name))
        return 0
    assert launch.training is not None
    is_sweep = bool(launch.flags & {"-m", "--multirun"})
    runs = compose_training(launch.training, settings, target, config_dir, multirun=is_sweep)
    jobs = _build_jobs(settings, runs, target.get_checkout() or repository)
    for note in check_jobs(target, jobs):
        print(f"{COMMAND}: {note}", file=sys.stderr)
    if target.needs_image:
        image = _pin_image(settings, target, jobs[0].commit)
        jobs = [replace(job, image=image) for job in jobs]
    elif settings.image is not None:
        raise LaunchError(f"image: target={target_name} runs a checkout; remove image=…")
    rendered = render_jobs(target, jobs)
    if _DRY_RUN in launch.flags:
        _print_jobs(jobs, rendered)
        return 0
    check_names(target, jobs, launch.settings)
    for line in submit(target, jobs):
        print(line, flush=True)
    return 0


def _build_jobs(settings: LaunchSettings, runs: Sequence[TrainingRun], checkout: Path) -> list[Job]:
    commit = read_commit(checkout, allow_dirty=settings.allow_dirty)
    return [
        Job(
            name=run.name,
            image=None,
            arguments=run.arguments,
            resources=settings.resources,
            commit=commit,
            environment=settings.environment,
            secrets=settings.secrets,
            labels={"app": "cls-train", **settings.labels},
        )
        for run in runs
    ]


def _print_jobs(jobs: Sequence[Job], rendered: Sequence[str]) -> None:
    """Print what would be submitted; headings go to standard error, so that YAML stays YAML."""
    for number, (job, text) in enumerate(zip(jobs, rendered, strict=True), start=1):
        if len(jobs) > 1:
            print(f"{COMMAND}: job {number} of {len(jobs)}: {job.name}", file=sys.stderr)
        print(text, end="", flush=True)
    if len(jobs) > 1:
        names = ", ".join(job.name for job in jobs)
        print(f"{COMMAND}: dry run of {len(jobs)} jobs: {names}", file=sys.stderr)


def _pin_image(settings: LaunchSettings, target: Target[Any], commit: str) -> str:
    text = settings.image
    if text is None:
        raise LaunchError(
            "image is required; set image=REGISTRY/REPOSITORY:TAG, or put it into conf/launch.yaml "
            "(docs/images.md builds one)"
        )
    image = target.find_local_image(text) or resolve_image(text)
    problem = None if settings.allow_other_commit else check_commit(image, text, commit)
    if problem is not None:
        print(f"{COMMAND}: the commit of the image was not checked: {problem}", file=sys.stderr)
    return image.reference


@contextmanager
def _explained_default(target_name: str) -> Iterator[None]:
    """Add to an error that no target was given."""
    try:
        yield
    except (LaunchError, LaunchFailedError) as error:
        raise type(error)(
            f"{error}\ntarget={target_name} was asked, the default; name another one with "
            f"target=TARGET ({', '.join(TARGETS)})"
        ) from error


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
