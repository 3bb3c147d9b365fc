"""Managed jobs of SkyPilot, through its command `sky`.

SkyPilot cannot be installed beside this project, whose dependencies exclude its own. `uv tool
install` gives it an environment to itself.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import Field

from cls_export.contract.text import escape_control_characters, shorten_long_words
from cls_launch.errors import LaunchError, LaunchFailedError
from cls_launch.targets.target import Job, TakenName, Target, TargetSettings

INSTALL = "target=skypilot runs the command `sky`: install it with `uv tool install skypilot[gcp]`"

_INFRA = re.compile(r"^[a-z0-9]+(/[a-z0-9*-]+){0,2}$")
_WITHOUT_DOCKER = ("k8s", "kubernetes", "ssh", "slurm")
_GPU = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_COLOR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_FINISHED = ("SUCCEEDED", "CANCELLED", "FAILED")
_QUERY_SECONDS = 300
_LAUNCH_SECONDS = 1800
"""The first job also starts SkyPilot's controller, which takes some minutes."""


class SkyPilotSettings(TargetSettings):
    """Settings of conf/launch/skypilot.yaml.

    Attributes:
        infra: `CLOUD[/REGION[/ZONE]]`; None for the cheapest of all clouds with credentials.
        instance_type: Machine type; None for the cheapest one with the resources.
        spot: Use machines that may be taken away.
        restarts_on_errors: Number of restarts after failures of the training itself.
        docker_login: Command that logs Docker in on the machine, for a private registry.
    """

    infra: str | None = None
    instance_type: str | None = None
    spot: bool = True
    restarts_on_errors: Annotated[int, Field(ge=0, le=100)] = 0
    docker_login: str | None = None


class SkyPilotTarget(Target[SkyPilotSettings]):
    """Run a job on the cloud that SkyPilot chooses."""

    settings_type: ClassVar[type[TargetSettings]] = SkyPilotSettings

    def check(self, job: Job) -> None:
        """Check the cloud, the GPU, and the secrets."""
        infra = self.settings.infra
        if infra is not None and not _INFRA.match(infra):
            raise LaunchError(
                f"target.infra={infra} is no place; expected CLOUD[/REGION[/ZONE]], such as "
                "gcp/us-central1"
            )
        if infra is not None and infra.partition("/")[0] in _WITHOUT_DOCKER:
            raise LaunchError(
                f"target.infra={infra} starts no machines with Docker; use target=kubernetes or "
                "target=slurm"
            )
        if self.settings.instance_type is not None and infra is None:
            raise LaunchError("target.instance_type needs target.infra, the cloud that has it")
        self._check_gpu(job)
        for variable, secret in job.secrets.items():
            if not _VARIABLE.match(secret):
                raise LaunchError(
                    f"The secret {secret!r} of {variable}: SkyPilot reads secrets from environment "
                    "variables of this machine; expected the name of one"
                )
            if not os.environ.get(secret):
                raise LaunchError(
                    f"SkyPilot reads the secret {secret} from an environment variable that is not "
                    f"set here: export {secret}"
                )

    def render(self, job: Job) -> str:
        """Return the task as YAML."""
        text: str = yaml.dump(
            self._build(job), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6
        )
        return text

    def find_taken(self, names: Sequence[str]) -> dict[str, TakenName]:
        """See `Target`."""
        taken = {}
        for job in _list_jobs():
            name = job.get("job_name")
            if name in names and _is_active(job):
                taken[str(name)] = TakenName(f"job {job['job_id']} ({job['status']})")
        return taken

    def submit(self, job: Job) -> str:
        """See `Target`."""
        secrets: list[str] = []
        for secret in dict.fromkeys(job.secrets.values()):
            secrets += ["--secret", secret]
        with tempfile.TemporaryDirectory(prefix="cls-launch-") as folder:
            task = Path(folder) / "task.yaml"
            task.write_text(self.render(job), encoding="utf-8")
            command = ["jobs", "launch", "--yes", "--detach-run", *secrets, str(task)]
            _run_sky(command, _LAUNCH_SECONDS)
        return f"{job.name}: submitted to SkyPilot. `sky jobs queue` lists it"

    def status(self, name: str) -> str:
        """Return the state of the newest job of this name."""
        job = _find_newest(name)
        recoveries = job.get("recovery_count") or 0
        restarted = f", restarted {recoveries} times" if recoveries else ""
        reason = f": {_clean(job['failure_reason'])}" if job.get("failure_reason") else ""
        return f"{job['status']}{restarted}{reason}"

    def logs(self, name: str) -> Iterator[str]:
        """Yield the lines that the job has written so far."""
        number = str(_find_newest(name)["job_id"])
        output = _run_sky(["jobs", "logs", "--no-follow", "--tail", "0", number], _QUERY_SECONDS)
        yield from output.splitlines()

    def stop(self, name: str) -> str:
        """Cancel the active job of this name."""
        job = _find_newest(name)
        if not _is_active(job):
            raise LaunchError(f"{name} is not running on SkyPilot, it is {job['status']}")
        _run_sky(["jobs", "cancel", "--yes", str(job["job_id"])], _QUERY_SECONDS)
        return f"{name}: asked SkyPilot to cancel it. It saves after SIGTERM, then stops"

    def _check_gpu(self, job: Job) -> None:
        resources = job.resources
        if resources.gpus == 0:
            return
        if resources.gpu is None:
            raise LaunchError(
                "target=skypilot needs the model of the GPU: add resources.gpu=L4, or "
                "resources.gpus=0 for the CPU; `sky gpus list` lists the models"
            )
        if not _GPU.match(resources.gpu):
            raise LaunchError(
                f"resources.gpu={resources.gpu} is no GPU; `sky gpus list` lists the models"
            )

    def _build(self, job: Job) -> dict[str, Any]:
        task: dict[str, Any] = {"name": job.name, "resources": self._build_resources(job)}
        if job.secrets:
            task["secrets"] = dict.fromkeys(job.secrets.values())
        task["setup"] = self._build_setup(job)
        task["run"] = _build_run(job)
        return task

    def _build_resources(self, job: Job) -> dict[str, Any]:
        settings, wanted = self.settings, job.resources
        resources: dict[str, Any] = {}
        if settings.infra is not None:
            resources["infra"] = settings.infra
        if settings.instance_type is not None:
            resources["instance_type"] = settings.instance_type
        if wanted.gpus:
            resources["accelerators"] = {wanted.gpu: wanted.gpus}
        if settings.instance_type is None:
            resources["cpus"] = f"{wanted.cpus}+"
            resources["memory"] = f"{wanted.memory_gb}+"
        resources["disk_size"] = wanted.disk_gb
        resources["use_spot"] = settings.spot
        resources["labels"] = {**job.labels, "commit": job.commit}
        resources["job_recovery"] = {
            "max_restarts_on_errors": settings.restarts_on_errors,
            "recover_on_exit_codes": [143],  # saved after SIGTERM
        }
        return resources

    def _build_setup(self, job: Job) -> str:
        lines = ["set -e"]
        registry = str(job.image).partition("/")[0]
        if self.settings.docker_login is not None:
            lines.append(self.settings.docker_login)
        elif registry.endswith("-docker.pkg.dev"):
            lines.append(f"sudo gcloud auth configure-docker {registry} --quiet")
        lines.append(shlex.join(["sudo", "docker", "pull", str(job.image)]))
        return "\n".join(lines) + "\n"


def _build_run(job: Job) -> str:
    """Return a script that becomes `docker run`, so that SIGTERM reaches the training."""
    lines = []
    for variable, secret in job.secrets.items():
        if variable != secret:
            lines.append(f'export {variable}="${secret}"')
    docker = ["docker", "run", "--rm", "--init", "--network=host", "--ipc=host"]
    if job.resources.gpus:
        docker.append("--gpus=all")
    words = [["sudo", *(f"--preserve-env={name}" for name in job.secrets), *docker]]
    words += [["--env", f"{name}={value}"] for name, value in job.environment.items()]
    words += [["--env", name] for name in job.secrets]
    words.append([str(job.image)])
    words += [[argument] for argument in job.arguments]
    command = " \\\n  ".join(shlex.join(each) for each in words)
    lines.append(f"exec {command}")
    return "\n".join(lines) + "\n"


def _list_jobs() -> list[dict[str, Any]]:
    """Return all jobs, the oldest first."""
    try:
        output = _run_sky(["jobs", "queue", "--all", "--output", "json"], _QUERY_SECONDS)
    except LaunchFailedError as error:
        if "No in-progress managed jobs" in str(error):  # no job has been launched yet
            return []
        raise
    start = re.search(r"^\[(\]|$)", output, re.MULTILINE)
    try:
        jobs = json.loads(output[start.start() :]) if start is not None else None
    except json.JSONDecodeError:
        jobs = None
    if jobs is None:
        raise LaunchFailedError(f"`sky jobs queue` printed no JSON: {_clean(output)}")
    return sorted(jobs, key=lambda job: job.get("job_id") or 0)


def _find_newest(name: str) -> dict[str, Any]:
    jobs = [job for job in _list_jobs() if job.get("job_name") == name]
    if not jobs:
        raise LaunchError(f"SkyPilot has no managed job {name!r}")
    return jobs[-1]


def _is_active(job: dict[str, Any]) -> bool:
    return not str(job.get("status")).startswith(_FINISHED)


def _run_sky(arguments: Sequence[str], seconds: int) -> str:
    if shutil.which("sky") is None:
        raise LaunchError(INSTALL)
    command = f"sky {' '.join(arguments[:2])}"
    try:
        result = subprocess.run(
            ["sky", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise LaunchFailedError(
            f"`{command}` has not answered for {seconds} seconds. Check the network, and `sky api "
            "status`"
        ) from None
    output = _COLOR.sub("", result.stdout)
    if result.returncode == 0:
        return output
    reason = _clean(_COLOR.sub("", result.stderr).strip() or output)
    raise _classify(command, reason)


def _classify(command: str, reason: str) -> Exception:
    lowered = reason.lower()
    if "sky check" in lowered or "credentials" in lowered:
        return LaunchError(
            f"`{command}` found no credentials of a cloud: {reason}. `sky check` says what to set "
            "up"
        )
    if "no launchable resource" in lowered or "invalid" in lowered or "not found" in lowered:
        return LaunchError(
            f"`{command}` refused the job: {reason}. Check target.infra and resources; `sky gpus "
            "list` lists what there is"
        )
    if "failed to resolve" in lowered or "connection" in lowered:
        return LaunchFailedError(f"`{command}` has no network: {reason}")
    return LaunchFailedError(f"`{command}` failed: {reason}")


def _clean(text: str) -> str:
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    last = "; ".join(lines[-3:]).rstrip(".")
    return shorten_long_words(escape_control_characters(last))


class _Dumper(yaml.SafeDumper):
    """Writes scripts as blocks."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
