"""Run a job as a Job of Kubernetes, through kubectl."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import AfterValidator, Field

from cls_export.contract.suggestions import did_you_mean
from cls_launch.errors import LaunchError
from cls_launch.targets.local import AbsolutePath
from cls_launch.targets.references import escape_references
from cls_launch.targets.target import Job, TakenName, Target, TargetSettings
from cls_launch.tools import run_tool

_INSTALL = "install it: https://kubernetes.io/docs/tasks/tools"
_WRONG_INPUT = (
    "alreadyexists",
    "context was not found",
    "does not exist",
    "is invalid",
    "must be logged in",
    'namespaces "',
    "notfound",
    "unauthorized",
    "cannot create resource",
    "cannot get resource",
    "cannot delete resource",
)
_SECRET = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[A-Za-z0-9._-]+)?")
_FINISHED = ("Complete", "Failed")
_MANAGED_BY = {"app.kubernetes.io/managed-by": "cls-launch"}
_EXIT_WRONG_INPUT = 2
_EXIT_TERMINATED = 143


def _check_dns_name(name: str) -> str:
    is_valid = all(c.isascii() and (c.isalnum() or c in "-.") for c in name)
    if not is_valid or not name or name != name.lower():
        raise ValueError(f"expected lowercase letters, digits, - and ., got {name!r:.200}")
    return name


DnsName = Annotated[str, AfterValidator(_check_dns_name)]
NodeLabels = dict[str, str]


class KubernetesSettings(TargetSettings):
    """Settings in conf/launch/kubernetes.yaml."""

    context: str | None = None
    namespace: DnsName = "default"
    service_account: DnsName | None = None
    spot: bool = False
    spot_nodes: NodeLabels = Field(default_factory=dict)
    gpu_nodes: dict[str, NodeLabels] = Field(default_factory=dict)
    volumes: dict[DnsName, AbsolutePath] = Field(default_factory=dict)
    grace_seconds: Annotated[int, Field(ge=1)] = 60
    failures: Annotated[int, Field(ge=0)] = 3


class KubernetesTarget(Target[KubernetesSettings]):
    """A cluster that kubectl reaches."""

    settings_type: ClassVar[type[TargetSettings]] = KubernetesSettings
    mount_setting: ClassVar[str | None] = "target.volumes"

    def list_mounted_folders(self) -> list[str]:
        """See `Target`."""
        return list(self.settings.volumes.values())

    def check(self, job: Job) -> None:
        """See `Target`."""
        for variable, name in job.secrets.items():
            if _SECRET.fullmatch(name) is None:
                raise LaunchError(
                    f"secrets.{variable}: expected SECRET or SECRET/KEY, where SECRET is the name "
                    f"of a Secret in lower case, got {name!r}"
                )
        gpu, known = job.resources.gpu, self.settings.gpu_nodes
        if job.resources.gpus and gpu is None and known:
            raise LaunchError(
                f"target=kubernetes needs the model of the GPU: add resources.gpu={min(known)}, or "
                f"resources.gpus=0 for the CPU; models in target.gpu_nodes: {', '.join(known)}"
            )
        if gpu is not None and gpu not in known:
            raise LaunchError(
                f"resources.gpu: {gpu!r:.200} is not in target.gpu_nodes, which names the nodes "
                f"that have it; {did_you_mean(gpu, known)}"
            )

    def render(self, job: Job) -> str:
        """Return the Job in YAML."""
        text: str = yaml.dump(
            self._build_job(job), Dumper=_Dumper, sort_keys=False, width=100, explicit_start=True
        )
        return text

    def find_taken(self, names: Sequence[str]) -> dict[str, TakenName]:
        """See `Target`."""
        taken = {}
        for name in names:
            found = self._get(name)
            if found is not None and not _is_ours(found):
                taken[name] = TakenName("a Job of something else", is_ours=False)
            elif found is not None and _find_end(found) is None:
                taken[name] = TakenName("a running Job")
        return taken

    def submit(self, job: Job) -> str:
        """See `Target`."""
        found = self._get(job.name)
        if found is not None and _is_ours(found) and _find_end(found) is not None:
            self._run("delete", "job", job.name, "--cascade=foreground")
        self._run("create", "--filename=-", text=self.render(job))
        return f"{job.name}: created in namespace {self.settings.namespace}"

    def status(self, name: str) -> str:
        """See `Target`."""
        job = self._get_existing(name)
        end = _find_end(job)
        if end is not None:
            message = end.get("message")
            return f"{end['type']}: {message}" if message else str(end["type"])
        status = job.get("status", {})
        is_ready = bool(status.get("ready"))
        return f"{'Running' if is_ready else 'Pending'}, {status.get('failed', 0)} failed pods"

    def logs(self, name: str) -> Iterator[str]:
        """See `Target`. The lines are those of the newest pod."""
        yield from self._run("logs", f"job/{name}", "--tail=-1").splitlines()

    def stop(self, name: str) -> str:
        """See `Target`. The pod has `grace_seconds` to save."""
        self._get_existing(name)
        self._run("delete", "job", name, "--cascade=foreground", "--wait=false")
        return f"{name}: stopping"

    def _build_job(self, job: Job) -> dict[str, Any]:
        labels = {**_MANAGED_BY, **job.labels}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": job.name,
                "namespace": self.settings.namespace,
                "labels": labels,
                "annotations": {"commit": job.commit},
            },
            "spec": {
                "backoffLimit": self.settings.failures,
                "podFailurePolicy": {"rules": _build_failure_rules()},
                "template": {"metadata": {"labels": dict(labels)}, "spec": self._build_pod(job)},
            },
        }

    def _build_pod(self, job: Job) -> dict[str, Any]:
        settings = self.settings
        pod: dict[str, Any] = {
            "restartPolicy": "Never",  # the Job starts a new pod, also on another node
            "terminationGracePeriodSeconds": settings.grace_seconds,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
        if settings.service_account:
            pod["serviceAccountName"] = settings.service_account
        nodes, tolerations = self._choose_nodes(job)
        if nodes:
            pod["nodeSelector"] = nodes
        if tolerations:
            pod["tolerations"] = tolerations

        volumes = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
        mounts = [{"name": "shm", "mountPath": "/dev/shm"}]
        for index, (claim, path) in enumerate(settings.volumes.items()):
            name = f"volume-{index}"
            volumes.append({"name": name, "persistentVolumeClaim": {"claimName": claim}})
            mounts.append({"name": name, "mountPath": path})
        pod["containers"] = [_build_container(job, mounts)]
        pod["volumes"] = volumes
        return pod

    def _choose_nodes(self, job: Job) -> tuple[NodeLabels, list[dict[str, str]]]:
        nodes: NodeLabels = {}
        tolerations = []
        if job.resources.gpus:
            nodes.update(self.settings.gpu_nodes.get(job.resources.gpu or "", {}))
            tolerations.append({"key": "nvidia.com/gpu", "operator": "Exists"})
        if self.settings.spot:
            nodes.update(self.settings.spot_nodes)
            for key, value in self.settings.spot_nodes.items():
                tolerations.append({"key": key, "operator": "Equal", "value": value})
        return nodes, tolerations

    def _get(self, name: str) -> dict[str, Any] | None:
        output = self._run("get", "job", name, "--ignore-not-found", "--output=json")
        if not output.strip():
            return None
        found: dict[str, Any] = json.loads(output)
        return found

    def _get_existing(self, name: str) -> dict[str, Any]:
        found = self._get(name)
        if found is None or not _is_ours(found):
            raise LaunchError(
                f"namespace {self.settings.namespace} has no Job {name!r} that apps/launch created"
            )
        return found

    def _run(self, verb: str, *arguments: str, text: str | None = None) -> str:
        command = ["kubectl", verb, *arguments, f"--namespace={self.settings.namespace}"]
        if self.settings.context:
            command.append(f"--context={self.settings.context}")
        return run_tool(command, install=_INSTALL, text=text, wrong_input=_WRONG_INPUT)


def _build_failure_rules() -> list[dict[str, Any]]:
    """Restart preempted pods without counting them, and end on wrong input.

    The first rule that matches wins.
    """

    def on_code(action: str, code: int) -> dict[str, Any]:
        codes = {"containerName": "train", "operator": "In", "values": [code]}
        return {"action": action, "onExitCodes": codes}

    disruption = {"type": "DisruptionTarget", "status": "True"}
    return [
        {"action": "Ignore", "onPodConditions": [disruption]},
        on_code("Ignore", _EXIT_TERMINATED),
        on_code("FailJob", _EXIT_WRONG_INPUT),
    ]


def _build_container(job: Job, mounts: list[dict[str, str]]) -> dict[str, Any]:
    resources = job.resources
    limits: dict[str, Any] = {
        "cpu": str(resources.cpus),
        "memory": f"{resources.memory_gb}G",
        "ephemeral-storage": f"{resources.disk_gb}G",
    }
    if resources.gpus:
        limits["nvidia.com/gpu"] = str(resources.gpus)
    environment: list[dict[str, Any]] = []
    for name, value in job.environment.items():
        environment.append({"name": name, "value": escape_references(value)})
    for variable, name in job.secrets.items():
        secret, _, key = name.partition("/")
        reference = {"name": secret, "key": key or variable}
        environment.append({"name": variable, "valueFrom": {"secretKeyRef": reference}})
    return {
        "name": "train",
        "image": job.image,
        "args": [escape_references(argument) for argument in job.arguments],
        "env": environment,
        "resources": {"requests": dict(limits), "limits": dict(limits)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _is_ours(job: dict[str, Any]) -> bool:
    labels: dict[str, str] = job["metadata"].get("labels") or {}
    return labels.items() >= _MANAGED_BY.items()


def _find_end(job: dict[str, Any]) -> dict[str, Any] | None:
    """Return the condition that says how a Job ended; None while it runs."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] in _FINISHED and condition["status"] == "True":
            found: dict[str, Any] = condition
            return found
    return None


class _Dumper(yaml.SafeDumper):
    """Quotes texts that a parser of another YAML version may not read as a text, such as `1e3`."""


_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_.:/@=-]*[A-Za-z0-9_/=-]")
_WORDS = ("false", "no", "null", "off", "on", "true", "yes")
"""Words that are no texts in some version of YAML."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')


_Dumper.add_representer(str, _represent_text)
