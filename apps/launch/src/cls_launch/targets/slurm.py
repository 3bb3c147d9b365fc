"""Run a job with sbatch, from a checkout that the nodes see."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from cls_launch.errors import LaunchError
from cls_launch.targets.local import AbsolutePath, check_own_variables
from cls_launch.targets.target import Job, TakenName, Target, TargetSettings
from cls_launch.tools import run_tool

_INSTALL = "run this command on a login node of the cluster"
_WRONG_INPUT = (
    "invalid account",
    "invalid feature",
    "invalid generic resource",
    "invalid partition",
    "invalid qos",
    "requested node configuration is not available",
    "requested time limit",
)
_PASSED = ("HOME", "LANG", "PATH", "USER")
"""Environment variables of the login node that every job needs."""


_SCRIPT = """\
#!/bin/bash
{head}

cd {folder} || exit 2
{exports}trap true TERM # the batch shell receives it too, and must survive to requeue
srun --export=ALL {command}
code=$?
running=$(squeue --noheader --jobs="$SLURM_JOB_ID" --states=RUNNING)
if [ "$code" -eq 143 ] && [ -n "$running" ]; then # a canceled job has code 143 too
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def _check_time(time: str) -> str:
    if re.fullmatch(r"(\d+-)?\d{1,4}(:\d{2}){0,2}", time) is None:
        raise ValueError("expected MINUTES, HOURS:MINUTES:SECONDS, or DAYS-HOURS:MINUTES:SECONDS")
    return time


class SlurmSettings(TargetSettings):
    """Settings in conf/launch/slurm.yaml."""

    checkout: AbsolutePath | None = None
    partition: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,-]+$")] | None = None
    account: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] | None = None
    time: Annotated[str, AfterValidator(_check_time)] = "04:00:00"
    notice_seconds: Annotated[int, Field(ge=10, le=3600)] = 120
    log: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./%-]+$")] = "%x.log"


class SlurmTarget(Target[SlurmSettings]):
    """A cluster with SLURM. The job runs a checkout, not an image."""

    settings_type: ClassVar[type[TargetSettings]] = SlurmSettings
    needs_image: ClassVar[bool] = False
    is_remote: ClassVar[bool] = False

    def get_checkout(self) -> Path | None:
        """See `Target`."""
        if self.settings.checkout is None:
            return None
        checkout = Path(self.settings.checkout)
        if not checkout.is_dir():
            raise LaunchError(
                f"target.checkout: '{checkout}': no such folder; expected a checkout of this "
                "repository that the nodes and this machine see"
            )
        return checkout

    def check(self, job: Job) -> None:
        """See `Target`."""
        check_own_variables(job.secrets, "slurm")
        gpu = job.resources.gpu
        if gpu is not None and re.fullmatch(r"[A-Za-z0-9_.-]+", gpu) is None:
            raise LaunchError(f"resources.gpu: expected a type that sinfo -o %G lists, got {gpu!r}")

    def render(self, job: Job) -> str:
        """Return the script for sbatch."""
        settings, resources = self.settings, job.resources
        options = [f"job-name={job.name}", f"comment=commit:{job.commit}"]
        if resources.gpus:
            kind = f":{resources.gpu.lower()}" if resources.gpu else ""
            options.append(f"gres=gpu{kind}:{resources.gpus}")
        options += [f"cpus-per-task={resources.cpus}", f"mem={resources.memory_gb}G"]
        if settings.partition:
            options.append(f"partition={settings.partition}")
        if settings.account:
            options.append(f"account={settings.account}")
        options += [
            f"time={settings.time}",
            f"signal=TERM@{settings.notice_seconds}",
            "requeue",
            "open-mode=append",
            f"output={settings.log}",
            "dependency=singleton",
            f"export={','.join([*_PASSED, *job.secrets])}",
        ]
        head = "\n".join(f"#SBATCH --{option}" for option in options)
        command = shlex.join(["uv", "run", "apps/train", *job.arguments])
        folder = shlex.quote(settings.checkout or str(Path.cwd()))
        exports = ""
        for name, value in job.environment.items():
            exports += f"export {name}={shlex.quote(value)}\n"
        return _SCRIPT.format(head=head, folder=folder, exports=exports, command=command)

    def find_taken(self, names: Sequence[str]) -> dict[str, TakenName]:
        """See `Target`."""
        taken = {}
        for name in names:
            jobs = self._list_jobs(name)
            if jobs:
                number, state = jobs[0]
                taken[name] = TakenName(f"job {number} ({state})")
        return taken

    def submit(self, job: Job) -> str:
        """See `Target`."""
        output = self._run(["sbatch", "--parsable"], text=self.render(job))
        number = output.strip().partition(";")[0]
        return f"{job.name}: submitted as job {number}"

    def status(self, name: str) -> str:
        """See `Target`. SLURM lists a job that has ended for a few minutes."""
        jobs = self._list_jobs(name, "--states=all")
        if not jobs:
            raise LaunchError(f"squeue lists no job {name!r}; try: sacct --name={name}")
        return jobs[-1][1]

    def logs(self, name: str) -> Iterator[str]:
        """See `Target`."""
        jobs = self._list_jobs(name, "--states=all")
        number = jobs[-1][0] if jobs else "%j"
        file_name = self.settings.log.replace("%x", name).replace("%j", number)
        path = Path(file_name)
        try:
            text = path.read_text(encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise LaunchError(
                f"{path}: {error.strerror}; run this in the folder where the job was launched, or "
                "wait until it starts"
            ) from error
        yield from text.splitlines()

    def stop(self, name: str) -> str:
        """See `Target`."""
        jobs = self._list_jobs(name)
        if not jobs:
            raise LaunchError(f"squeue lists no job {name!r}")
        for number, _ in jobs:
            self._run(["scancel", number])
        return f"{name}: canceled"

    def _list_jobs(self, name: str, *more: str) -> list[tuple[str, str]]:
        """Return number and state of my jobs of this name, in the order of their numbers."""
        output = self._run(
            ["squeue", "--me", "--noheader", "--sort=i", f"--name={name}", "--format=%i %T", *more]
        )
        rows = [line.split() for line in output.splitlines()]
        return [(row[0], row[1]) for row in rows if len(row) == 2]

    def _run(self, command: list[str], text: str | None = None) -> str:
        return run_tool(command, install=_INSTALL, text=text, wrong_input=_WRONG_INPUT)
