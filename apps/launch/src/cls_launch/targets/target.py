"""The interface between the launcher and the services that run jobs."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from cls_launch.images import ResolvedImage


class Resources(BaseModel):
    """What a job needs.

    Attributes:
        gpus: Number of GPUs.
        gpu: Model of the GPU, such as L4, A100, A100-80GB, or H100. Each target translates it to
            the name that its service uses, or refuses it.
        cpus: Number of CPU cores.
        memory_gb: Memory in GB.
        disk_gb: Local disk in GB.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: Annotated[int, Field(ge=0, le=16)] = 1
    gpu: str | None = None
    cpus: Annotated[int, Field(ge=1)] = 4
    memory_gb: Annotated[int, Field(ge=1)] = 16
    disk_gb: Annotated[int, Field(ge=1)] = 100


@dataclass(frozen=True, slots=True)
class Job:
    """One training run, as every target gets it.

    Attributes:
        name: Lowercase letters, digits, and `-`; starts with a letter, at most 63 characters.
        image: Reference with a digest, `registry/repository@sha256:…`. None only for targets that
            run without an image.
        arguments: Arguments of `apps/train`, which is the entry point of the image.
        resources: What the job needs.
        commit: Git commit of the checkout, with `-dirty` for local changes.
        environment: Values of environment variables. None of them is secret.
        secrets: Name of an environment variable → name of the target's secret that holds its value.
            Values of secrets never reach the launcher.
        labels: Lowercase names and values, for labels of the service.
    """

    name: str
    image: str | None
    arguments: tuple[str, ...]
    resources: Resources
    commit: str
    environment: Mapping[str, str]
    secrets: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TakenName:
    """The job that has a name.

    Attributes:
        description: Completes "the name is that of …", such as `job 42 (PENDING)`.
        is_ours: Whether it was launched by this app, which then can stop it.
    """

    description: str
    is_ours: bool = True


class TargetSettings(BaseModel):
    """Settings of one target, from conf/launch/NAME.yaml and `target.KEY=VALUE`."""

    synonyms: ClassVar[Mapping[str, str]] = {}
    """Names that other targets have for a setting → its name here."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


SettingsT = TypeVar("SettingsT", bound=TargetSettings)


class Target(ABC, Generic[SettingsT]):
    """A service that runs jobs.

    All methods raise `LaunchError` for wrong input (no credentials, an unknown region or GPU, a
    missing client library or executable) and `LaunchFailedError` for work
    that failed on correct input (no network, a quota, as the service says it). A module of a
    target is importable without its client library.

    Attributes:
        settings_type: The model of its settings.
        needs_image: Whether the job runs in a container.
        is_remote: Whether the job sees none of this machine's folders, except for
            `list_mounted_folders`. Then data and run folders are URLs or below one of those.
        mount_setting: The setting that mounts folders, or None.
    """

    settings_type: ClassVar[type[TargetSettings]]
    needs_image: ClassVar[bool] = True
    is_remote: ClassVar[bool] = True
    mount_setting: ClassVar[str | None] = None

    def __init__(self, settings: SettingsT) -> None:
        self.settings = settings

    def get_checkout(self) -> Path | None:
        """Return the checkout that the job runs, if it is another one than this."""
        return None

    def find_local_image(self, text: str) -> ResolvedImage | None:
        """Return an image that the job can have without a registry; None if there is none."""
        del text
        return None

    def list_mounted_folders(self) -> list[str]:
        """Return the absolute folders that the job mounts; data and runs may be below them."""
        return []

    @abstractmethod
    def check(self, job: Job) -> None:
        """Check what can be checked before anything is billed, without connecting to anything.

        This is also called before a dry run.
        """

    def list_notes(self, job: Job) -> list[str]:
        """Return what the user should know about a job that passed `check`."""
        del job
        return []

    @abstractmethod
    def render(self, job: Job) -> str:
        """Return the text of what would be submitted. Pure: the same job renders the same text."""

    @abstractmethod
    def find_taken(self, names: Sequence[str]) -> dict[str, TakenName]:
        """Return those of the names that a running job has. This connects to the service."""

    @abstractmethod
    def submit(self, job: Job) -> str:
        """Submit the job, whose name is free, and return one line for the user.

        An ended job of this name is replaced if the service allows one job of a name.
        """

    @abstractmethod
    def status(self, name: str) -> str:
        """Return the state of a job, as the service names it."""

    @abstractmethod
    def logs(self, name: str) -> Iterator[str]:
        """Yield the lines of a job's log, without their line ends."""

    @abstractmethod
    def stop(self, name: str) -> str:
        """Stop a job so that it saves first, and return one line for the user."""
