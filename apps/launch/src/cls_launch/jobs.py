"""Check all jobs of a launch before the first one is submitted."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cls_launch.errors import LaunchError, LaunchFailedError
from cls_launch.secret_names import check_rendered
from cls_launch.targets.target import Job, TakenName, Target


def check_jobs(target: Target[Any], jobs: Sequence[Job]) -> list[str]:
    """Check all jobs without connecting to the service, and return notes for the user.

    Raises:
        LaunchError: Jobs are refused. The message names all of them.
    """
    refused = {}
    notes: list[str] = []
    for job in jobs:
        try:
            target.check(job)
        except LaunchError as error:
            refused[job.name] = str(error)
        else:
            notes += target.list_notes(job)
    raise_refused(refused, len(jobs))
    return list(dict.fromkeys(notes))


def render_jobs(target: Target[Any], jobs: Sequence[Job]) -> list[str]:
    """Render all jobs.

    Raises:
        LaunchError: A job would hold the value of a secret. The message names all such jobs.
    """
    rendered = []
    refused = {}
    for job in jobs:
        text = target.render(job)
        rendered.append(text)
        try:
            check_rendered(f"{job}\n{text}", job.secrets)
        except LaunchError as error:
            refused[job.name] = str(error)
    raise_refused(refused, len(jobs))
    return rendered


def check_names(target: Target[Any], jobs: Sequence[Job], arguments: Sequence[str]) -> None:
    """Check that no running job has one of the names.

    Args:
        target: Where the jobs will run.
        jobs: All jobs of the launch.
        arguments: The arguments before `--`; those of the target are part of the advice.

    Raises:
        LaunchError: Names are taken. The message names all of them.
        LaunchFailedError: The service cannot be asked.
    """
    taken = target.find_taken([job.name for job in jobs])
    settings = [each for each in arguments if each.startswith(("target=", "target."))]
    refused = {name: _describe_taken(name, job, settings) for name, job in taken.items()}
    raise_refused(refused, len(jobs))


def submit(target: Target[Any], jobs: Sequence[Job]) -> Iterator[str]:
    """Submit the jobs one after another, and yield a line for each.

    Raises:
        LaunchError, LaunchFailedError: A job was refused. The message says which others run.
    """
    for index, job in enumerate(jobs):
        try:
            line = target.submit(job)
        except (LaunchError, LaunchFailedError) as error:
            if len(jobs) == 1:
                raise
            before = ", ".join(each.name for each in jobs[:index]) or "none"
            after = ", ".join(each.name for each in jobs[index:])
            raise type(error)(f"{error}\nsubmitted: {before}\nnot submitted: {after}") from error
        yield line


def raise_refused(refused: Mapping[str, str], number_of_jobs: int) -> None:
    """Raise one error for all jobs that were refused, given their reasons by name.

    Jobs with the same reason share a line. A reason that all jobs have is told once.

    Raises:
        LaunchError: There is a reason.
    """
    names_by_reason: dict[str, list[str]] = {}
    for name, reason in refused.items():
        names_by_reason.setdefault(reason, []).append(name)
    if not names_by_reason:
        return
    lines = []
    for reason, names in names_by_reason.items():
        is_told_once = len(names) == number_of_jobs
        lines.append(reason if is_told_once else f"{', '.join(names)}: {reason}")
    note = "\nno job was submitted" if number_of_jobs > 1 else ""
    raise LaunchError("\n".join(lines) + note)


def _describe_taken(name: str, job: TakenName, settings: Sequence[str]) -> str:
    problem = f"run.name: {name!r} is the name of {job.description}"
    if not job.is_ours:
        return f"{problem}; choose another run.name"
    options = "".join(f" {shlex.quote(each)}" for each in settings)
    return f"{problem}; choose another run.name, or stop it with: apps/launch stop {name}{options}"
