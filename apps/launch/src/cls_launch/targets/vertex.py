"""Custom jobs of Vertex AI on Google Cloud."""

import functools
import inspect
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from cls_launch.errors import LaunchError, LaunchFailedError
from cls_launch.targets import vertex_secrets
from cls_launch.targets.references import escape_references
from cls_launch.targets.target import Job, TakenName, Target, TargetSettings
from cls_launch.targets.vertex_client import ACTIVE_STATES, SubmittedJob, VertexClient
from cls_launch.targets.vertex_machines import (
    Machine,
    check_region,
    choose_machine,
    name_accelerator,
)

_PROJECT = re.compile(r"^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$|^\d{6,}$")
_SERVICE_ACCOUNT = re.compile(r"^[^@\s]+@[^@\s]+\.gserviceaccount\.com$")
_SECRET = re.compile(r"^[A-Za-z0-9_-]{1,255}$")
_SMALLEST_DISK_GB = 100
_STRATEGIES = {"spot": "SPOT", "on_demand": "STANDARD", "flex_start": "FLEX_START"}

Hours = Annotated[float, Field(gt=0, le=24 * 28)]


class VertexSettings(TargetSettings):
    """Settings of conf/launch/vertex.yaml.

    Attributes:
        project: ID of the Google Cloud project.
        region: Region of the job.
        machine: Machine type; None for the smallest one with the resources.
        strategy: How machines are obtained.
        restart: Whether the service starts the job again after it lost its machine.
        timeout_hours: Longest running time, all restarts together.
        max_wait_hours: Longest time that `flex_start` waits for a machine.
        service_account: Identity of the job; None for the default of the project.
        network: VPC network, `projects/NUMBER/global/networks/NAME`; None for no peering.
        entrypoint: Entry point of the image, which jobs with secrets have to repeat.
        endpoint: Host of the service; None for that of the region. `http://HOST:PORT` is an
            emulator.
    """

    synonyms = MappingProxyType(
        {
            "spot": "strategy=spot, on_demand, or flex_start",
            "instance_type": "machine",
            "time": "timeout_hours",
        }
    )

    project: str | None = None
    region: str = "us-central1"
    machine: str | None = None
    strategy: Literal["spot", "on_demand", "flex_start"] = "spot"
    restart: bool = True
    timeout_hours: Hours = 72
    max_wait_hours: Hours = 24
    service_account: str | None = None
    network: Annotated[str, Field(pattern=r"^projects/[^/\s]+/global/networks/[^/\s]+$")] | None = (
        None
    )
    entrypoint: Annotated[tuple[str, ...], Field(min_length=1)] = ("python", "/opt/cls/apps/train")
    endpoint: str | None = None


class VertexTarget(Target[VertexSettings]):
    """Run a job on Vertex AI."""

    settings_type: ClassVar[type[TargetSettings]] = VertexSettings

    def check(self, job: Job) -> None:
        """Check the project, region, machine, and secrets."""
        settings = self.settings
        self._check_place()
        account = settings.service_account
        if account is not None and not _SERVICE_ACCOUNT.match(account):
            raise LaunchError(
                f"target.service_account={account} is no service account; expected "
                "NAME@PROJECT.iam.gserviceaccount.com"
            )
        for variable, secret in job.secrets.items():
            if not _SECRET.match(secret):
                raise LaunchError(
                    f"The secret {secret!r} of {variable} is no name in Secret Manager; expected "
                    "letters, digits, `_`, and `-`"
                )
        self._choose_machine(job)

    def list_notes(self, job: Job) -> list[str]:
        """See `Target`."""
        machine = self._choose_machine(job)
        if machine.is_known:
            return []
        gpus = f" with {machine.gpus} x {machine.gpu}" if machine.gpu else ""
        return [
            f"target.machine={machine.name}{gpus} is not in the table of apps/launch, and was not "
            "checked; the service answers whether it exists"
        ]

    def render(self, job: Job) -> str:
        """Return the CustomJob as JSON."""
        return json.dumps(self._build(job), indent=2, ensure_ascii=False) + "\n"

    def find_taken(self, names: Sequence[str]) -> dict[str, TakenName]:
        """See `Target`."""
        taken = {}
        for name in names:
            active = _find_active(self._client, name)
            if active is not None:
                taken[name] = TakenName(f"{active.resource} ({active.state})")
        return taken

    def submit(self, job: Job) -> str:
        """See `Target`."""
        created = self._client.create(self.render(job))
        return f"{job.name}: submitted as {created.resource}. {self._describe_console(created)}"

    def status(self, name: str) -> str:
        """Return the state of the newest job of this name."""
        job = _find_newest(self._client, name)
        return f"{job.state}: {job.error}" if job.error else job.state

    def logs(self, name: str) -> Iterator[str]:
        """Yield the lines that gcloud reads from Cloud Logging."""
        job = _find_newest(self._client, name)
        command = (
            *("gcloud", "ai", "custom-jobs", "stream-logs", job.number),
            *(f"--region={self.settings.region}", f"--project={self.settings.project}"),
        )
        if shutil.which("gcloud") is None:
            raise LaunchError(
                "Vertex AI keeps logs in Cloud Logging, which gcloud reads: install the Google "
                f"Cloud CLI and run `{' '.join(command)}`. {self._describe_console(job)}"
            )
        yield from _read_lines(command)

    def stop(self, name: str) -> str:
        """Cancel the active job of this name."""
        job = _find_active(self._client, name)
        if job is None:
            state = _find_newest(self._client, name).state
            raise LaunchError(f"{name} is not running on Vertex AI, it is {state}")
        self._client.cancel(job)
        return f"{name}: asked Vertex AI to cancel it. It saves after SIGTERM, then stops"

    def _build(self, job: Job) -> dict[str, Any]:
        settings = self.settings
        spec: dict[str, Any] = {
            "workerPoolSpecs": [self._build_worker_pool(job)],
            "scheduling": self._build_scheduling(),
        }
        if settings.service_account is not None:
            spec["serviceAccount"] = settings.service_account
        if settings.network is not None:
            spec["network"] = settings.network
        labels = {**job.labels, "commit": job.commit}
        return {"displayName": job.name, "labels": labels, "jobSpec": spec}

    def _build_worker_pool(self, job: Job) -> dict[str, Any]:
        chosen = self._choose_machine(job)
        machine: dict[str, Any] = {"machineType": chosen.name}
        if chosen.gpu is not None:
            machine["acceleratorType"] = name_accelerator(chosen.gpu)
            machine["acceleratorCount"] = chosen.gpus
        disk_gb = max(job.resources.disk_gb, _SMALLEST_DISK_GB)
        return {
            "machineSpec": machine,
            "replicaCount": "1",
            "diskSpec": {"bootDiskSizeGb": disk_gb},
            "containerSpec": self._build_container(job),
        }

    def _build_container(self, job: Job) -> dict[str, Any]:
        container: dict[str, Any] = {"imageUri": job.image}
        if job.secrets:
            secrets = [f"{variable}={secret}" for variable, secret in job.secrets.items()]
            script = inspect.getsource(vertex_secrets)
            command = ["python", "-c", script, str(self.settings.project), *secrets, "--"]
            container["command"] = [
                escape_references(word) for word in (*command, *self.settings.entrypoint)
            ]
        container["args"] = [escape_references(argument) for argument in job.arguments]
        container["env"] = [
            {"name": name, "value": escape_references(value)}
            for name, value in job.environment.items()
        ]
        return container

    def _choose_machine(self, job: Job) -> Machine:
        on_demand = self.settings.strategy == "on_demand"
        return choose_machine(job.resources, self.settings.machine, on_demand)

    def _build_scheduling(self) -> dict[str, Any]:
        settings = self.settings
        scheduling: dict[str, Any] = {
            "strategy": _STRATEGIES[settings.strategy],
            "timeout": f"{round(settings.timeout_hours * 3600)}s",
            "restartJobOnWorkerRestart": settings.restart,
            "disableRetries": not settings.restart,
        }
        if settings.strategy == "flex_start":
            scheduling["maxWaitDuration"] = f"{round(settings.max_wait_hours * 3600)}s"
        return scheduling

    def _check_place(self) -> str:
        project = self.settings.project
        if project is None:
            raise LaunchError(
                "target=vertex needs the Google Cloud project: add target.project=ID "
                "(`gcloud config get project` prints yours)"
            )
        if not _PROJECT.match(project):
            raise LaunchError(
                f"target.project={project} is no project ID; expected 6 to 30 lowercase letters, "
                "digits, and `-`, as in `gcloud projects list`"
            )
        check_region(self.settings.region)
        return project

    @functools.cached_property
    def _client(self) -> VertexClient:
        project = self._check_place()
        return VertexClient(project, self.settings.region, self.settings.endpoint)

    def _describe_console(self, job: SubmittedJob) -> str:
        settings = self.settings
        return (
            "In the console: https://console.cloud.google.com/vertex-ai/locations/"
            f"{settings.region}/training/{job.number}?project={settings.project}"
        )


def _find_active(client: VertexClient, name: str) -> SubmittedJob | None:
    active = [job for job in client.find(name) if job.state in ACTIVE_STATES]
    return active[0] if active else None


def _find_newest(client: VertexClient, name: str) -> SubmittedJob:
    jobs = client.find(name)
    if not jobs:
        raise LaunchError(f"Vertex AI has no job {name!r} in this project and region")
    return jobs[0]


def _read_lines(command: tuple[str, ...]) -> Iterator[str]:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield line.rstrip("\n")
        except GeneratorExit:
            process.terminate()
            raise
    if process.returncode != 0:
        raise LaunchFailedError(f"`{' '.join(command)}` failed with exit code {process.returncode}")
