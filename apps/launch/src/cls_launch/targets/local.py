"""Run a job in a container on this machine."""

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from cls_launch.errors import LaunchError
from cls_launch.images import ResolvedImage
from cls_launch.targets.target import Job, TakenName, Target, TargetSettings
from cls_launch.tools import run_tool

_INSTALL = "install Docker (https://docs.docker.com/engine/install) or set target.runtime=podman"
_UNKNOWN = ("no such", "no container", "not known")
_ACTIVE = ("paused", "restarting", "running", "stopping")
_SHORTEST_NAME = 2
_PULL_SECONDS = 3600.0
"""How long the start may take, which pulls the image first if it is missing."""


def check_absolute(path: str) -> str:
    """Return an absolute path without `..`, `,`, or `:`, which would need quoting.

    Raises:
        ValueError: It is another one.
    """
    if not path.startswith("/") or ".." in path.split("/") or any(c in path for c in ",:\n"):
        raise ValueError("expected an absolute path without .. , or :")
    return path.rstrip("/") or "/"


AbsolutePath = Annotated[str, AfterValidator(check_absolute)]


def check_own_variables(secrets: Mapping[str, str], target: str) -> None:
    """Check secrets that are environment variables of this machine under their own names.

    Raises:
        LaunchError: One has another name, or is not set.
    """
    for variable, name in secrets.items():
        if variable != name:
            raise LaunchError(
                f"secrets.{variable}: target={target} passes the environment variable on under its "
                f"own name; set secrets=[{variable}]"
            )
        if not os.environ.get(variable):
            raise LaunchError(
                f"secrets.{variable}: this environment variable is not set here; export it first"
            )


class LocalSettings(TargetSettings):
    """Settings in conf/launch/local.yaml."""

    runtime: Literal["docker", "podman"] = "docker"
    folders: tuple[AbsolutePath, ...] = ()
    stop_seconds: Annotated[int, Field(ge=1, le=100)] = 60


class LocalTarget(Target[LocalSettings]):
    """Docker or Podman on this machine."""

    settings_type: ClassVar[type[TargetSettings]] = LocalSettings
    mount_setting: ClassVar[str | None] = "target.folders"

    def list_mounted_folders(self) -> list[str]:
        """See `Target`. Folders have the same path in the container."""
        return list(self.settings.folders)

    def find_local_image(self, text: str) -> ResolvedImage | None:
        """See `Target`. A name without a registry is one of an image of this machine."""
        if "/" in text:
            return None
        try:
            found = json.loads(self._run("image", "inspect", text))[0]
        except LaunchError as error:
            raise LaunchError(
                f"image: {error}; build it as in docs/images.md, or name one with its registry"
            ) from error
        identifier = str(found["Id"])
        digest = identifier if ":" in identifier else f"sha256:{identifier}"  # Podman's has none
        return ResolvedImage(digest, found["Config"].get("Labels") or {})

    def check(self, job: Job) -> None:
        """See `Target`."""
        check_own_variables(job.secrets, "local")
        if len(job.name) < _SHORTEST_NAME:
            raise LaunchError(
                f"run.name: names of containers have at least {_SHORTEST_NAME} characters, got "
                f"{job.name!r}"
            )
        for folder in self.settings.folders:
            if not os.path.isdir(folder):  # noqa: PTH112, Path.is_dir raises errors
                raise LaunchError(f"target.folders: {folder!r:.500}: no such folder")

    def render(self, job: Job) -> str:
        """Return the command that starts the container."""
        lines = [shlex.join(part) for part in self._build_parts(job)]
        return " \\\n  ".join(lines) + "\n"

    def find_taken(self, names: Sequence[str]) -> dict[str, TakenName]:
        """See `Target`."""
        taken = {}
        for name in names:
            found = self._inspect(name)
            if found is not None and found["Status"] in _ACTIVE:
                taken[name] = TakenName(f"a {found['Status']} container")
        return taken

    def submit(self, job: Job) -> str:
        """See `Target`."""
        found = self._inspect(job.name)
        if found is not None and found["Status"] not in _ACTIVE:
            self._run("rm", job.name)
        command = [word for part in self._build_parts(job) for word in part]
        self._run(*command[1:], seconds=_PULL_SECONDS)
        return f"{job.name}: started with {self.settings.runtime}"

    def status(self, name: str) -> str:
        """See `Target`."""
        state = self._inspect(name)
        if state is None:
            raise LaunchError(f"{self.settings.runtime} has no container {name!r}")
        if state["Status"] == "exited":
            return f"exited with code {state['ExitCode']}"
        return str(state["Status"])

    def logs(self, name: str) -> Iterator[str]:
        """See `Target`."""
        yield from self._run("logs", name, with_errors=True).splitlines()

    def stop(self, name: str) -> str:
        """See `Target`."""
        self._run("stop", name)
        return f"{name}: stopped"

    def _build_parts(self, job: Job) -> list[list[str]]:
        assert job.image is not None
        settings = self.settings
        parts = [[settings.runtime, "run"], ["--detach"], ["--name", job.name]]
        parts.append(["--stop-timeout", str(settings.stop_seconds)])
        resources = job.resources
        if resources.gpus and settings.runtime == "docker":
            parts.append(["--gpus", str(resources.gpus)])
        elif resources.gpus:
            for index in range(resources.gpus):
                parts.append(["--device", f"nvidia.com/gpu={index}"])
        parts.append(["--cpus", str(resources.cpus)])
        parts.append(["--memory", f"{resources.memory_gb}g"])
        parts.append(["--shm-size", f"{max(1, resources.memory_gb // 4)}g"])
        for key, value in {**job.labels, "commit": job.commit}.items():
            parts.append(["--label", f"{key}={value}"])
        for key, value in job.environment.items():
            parts.append(["--env", f"{key}={value}"])
        for variable in job.secrets:
            parts.append(["--env", variable])
        for folder in settings.folders:
            parts.append(["--volume", f"{folder}:{folder}"])
        return [*parts, [job.image], *([argument] for argument in job.arguments)]

    def _inspect(self, name: str) -> dict[str, Any] | None:
        command = ("container", "ls", "--all", "--filter", f"name=^{name}$", "--quiet")
        if not self._run(*command).strip():
            return None
        found: dict[str, Any] = json.loads(self._run("inspect", name))[0]["State"]
        return found

    def _run(self, *arguments: str, **options: Any) -> str:
        command = [self.settings.runtime, *arguments]
        return run_tool(command, install=_INSTALL, wrong_input=_UNKNOWN, **options)
