"""A run's folder: what lies where, and whether it is new, interrupted or finished."""

import difflib
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from loguru import logger
from omegaconf import OmegaConf

from cls_callbacks import DamagedCheckpointError, verify_checkpoint
from cls_export import LabelsMapping
from cls_export.contract.files import write_atomically
from cls_train.composition.config import RunConfig
from cls_train.errors import RunError

_HELD: dict[Path, FileLock] = {}
"""Locks of the runs that this process trains, by folder. The system takes them back when it ends, however it ends."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one run. It is finished exactly when summary.json is there, which is written last."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def labels(self) -> Path:
        """The labels mapping, written before the first step."""
        return self.path / "labels_mapping.json"

    @property
    def best(self) -> Path:
        """The checkpoint of the best weights."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def previous(self) -> Path:
        """What the checkpoint to go on from was before, in case that one is damaged."""
        return self.path / "checkpoints" / "previous.ckpt"

    @property
    def bundle(self) -> Path:
        """The exported bundle."""
        return self.path / "export"

    @property
    def data_check(self) -> Path:
        """What the data gate found."""
        return self.path / "data_check.json"

    @property
    def evaluation(self) -> Path:
        """Figures of the evaluation in a clean process."""
        return self.path / "evaluation.json"

    @property
    def origin(self) -> Path:
        """By which command and with which versions the run was begun."""
        return self.path / "origin.json"

    @property
    def degradation(self) -> Path:
        """Accuracy on images that were made worse."""
        return self.path / "degradation.json"

    @property
    def report(self) -> Path:
        """The page that shows all of it."""
        return self.path / "report.html"

    @property
    def summary(self) -> Path:
        """The run's figures; its presence says that the run is finished."""
        return self.path / "summary.json"

    @property
    def plots(self) -> Path:
        """Pictures."""
        return self.path / "plots"

    @property
    def log(self) -> Path:
        """What was logged."""
        return self.path / "train.log"

    @property
    def lock(self) -> Path:
        """Locked by the process that trains the run."""
        return self.path / "run.lock"

    @property
    def owner(self) -> Path:
        """Which process that is; gone when it has finished the run."""
        return self.path / "owner.json"

    @classmethod
    def named(cls, config: RunConfig, model: str) -> "RunFolder":
        """Find the folder of a run, by its given name or by a new one made from date, model and seed."""
        if config.run.name is not None:
            return cls(config.run.root / config.run.name)
        stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{model}-seed{config.seed}"
        folder, number = config.run.root / stem, 2
        while folder.exists():
            folder, number = config.run.root / f"{stem}-{number}", number + 1
        return cls(folder)

    def refuse_if_taken(self) -> None:
        """Refuse a finished run, one that is being trained, and a folder of something else, before any work is done.

        Raises:
            RunError: says which, and what to do.
        """
        if self.summary.exists():
            raise RunError(
                f"run {self.path.name!r} is finished ({self.summary}); choose another run.name, or delete its folder"
            )
        if self.path.exists() and not self.config.exists() and any(self.path.iterdir()):
            raise RunError(
                f"{self.path} is not a run's folder; choose another run.name or run.root"
            )
        if self.lock.exists() and self.path.resolve() not in _HELD:
            self._acquire().release()

    def interrupted(self, config: RunConfig) -> RunConfig | None:
        """Return the configuration of an interrupted run of the same model; None where there is none to go on with.

        The model is the same where the stem is left to be chosen: the run has recorded which one was.

        Raises:
            RunError: config.yaml is damaged.
        """
        if not any(checkpoint.exists() for checkpoint in self._checkpoints):
            return None
        recorded, stem = self.read_config(), config.model.get("stem", "auto")
        same = {**recorded.model, "stem": stem} == {**config.model, "stem": stem}
        return recorded if same and stem in ("auto", recorded.model.get("stem")) else None

    def begin(self, config: RunConfig, labels: LabelsMapping) -> Path | None:
        """Make the folder, or check that an interrupted run can go on as asked; keep other processes out of it.

        Returns:
            The checkpoint to go on from; None for a start from the beginning.

        Raises:
            RunError: the interrupted run had another configuration, other classes or other data; says what differs.
        """
        if any(checkpoint.exists() for checkpoint in self._checkpoints):
            self._take()
            self._refuse_differences(config, labels)
            write_atomically(
                self.config, config.to_yaml().encode()
            )  # stages may differ, and the new ones count
            for draft in self.last.parent.glob(".*"):  # of a process that died while it wrote
                draft.unlink()
            return self.last
        try:
            self.path.mkdir(parents=True, exist_ok=config.run.name is not None)
            self._take()
            labels.save(self.labels)
            write_atomically(self.config, config.to_yaml().encode())
        except FileExistsError as error:
            raise RunError(
                f"{self.path} was made by another run this very second; start again, or give run.name"
            ) from error
        except OSError as error:
            raise RunError(
                f"{self.path}: the run's folder cannot be made ({error.strerror})"
            ) from error
        return None

    def sound_checkpoint(self) -> Path:
        """Return last.ckpt to go on from; or the one before, with a warning, where that is damaged or missing.

        Raises:
            RunError: none can be used; says of last.ckpt why.
        """
        errors = []
        for path in self._checkpoints:
            try:
                load_checkpoint(path)
            except RunError as error:
                errors.append(error)
            else:
                if errors:
                    logger.warning("{}; going on from {}", errors[0], path.name)
                return path
        raise errors[0]

    def release(self) -> None:
        """Let other processes train the run."""
        if (lock := _HELD.pop(self.path.resolve(), None)) is not None:
            self.owner.unlink(missing_ok=True)
            lock.release()

    @property
    def _checkpoints(self) -> tuple[Path, ...]:
        """What can be gone on from, the newest that is surely whole first; next.ckpt is there between two renames."""
        return self.last, self.last.with_name("next.ckpt"), self.previous

    def _take(self) -> None:
        if self.path.resolve() in _HELD:
            return
        lock = self._acquire()
        here = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        try:
            self.write_json(self.owner, here)
        except OSError as error:
            lock.release()
            raise RunError(f"{self.owner}: cannot be written ({error.strerror})") from error
        _HELD[self.path.resolve()] = lock

    def _acquire(self) -> FileLock:
        lock = FileLock(self.lock, timeout=0, fallback_to_soft=False)
        try:
            lock.acquire()
        except NotImplementedError:
            logger.warning(
                "{}: this file system has no locks; nothing keeps a second process out", self.path
            )
        except Timeout as error:
            raise RunError(
                f"run {self.path.name!r} is being trained by {self._named_owner()}; "
                "wait for its end, or choose another run.name"
            ) from error
        except OSError as error:
            raise RunError(f"{self.lock}: cannot be written ({error.strerror})") from error
        return lock

    def _named_owner(self) -> str:
        try:
            owner = json.loads(self.owner.read_bytes())
            return f"process {owner['process']} on {owner['host']}, since {owner['since']}"
        except (OSError, ValueError, KeyError, TypeError):  # it has only just begun
            return "another process"

    def _refuse_differences(self, config: RunConfig, labels: LabelsMapping) -> None:
        then, now = _comparable(self.read_config()), _comparable(config)
        changed = [line for line in difflib.ndiff(then, now) if line[0] in "-+"]
        before = LabelsMapping.load(self.labels)
        if before.classes != labels.classes:
            gone, new = (
                set(before.classes) - set(labels.classes),
                set(labels.classes) - set(before.classes),
            )
            changed.append(f"classes: {sorted(gone)} are gone, {sorted(new)} are new")
        elif before.provenance.data_fingerprint != labels.provenance.data_fingerprint:
            changed.append("data: rows or images have changed since (another fingerprint)")
        if changed:
            raise RunError(
                f"run {self.path.name!r} was interrupted and cannot go on as asked; "
                "differences (- then, + now):\n  " + "\n  ".join(changed) + "\n"
                "Repeat its settings, or choose another run.name"
            )

    def read_config(self) -> RunConfig:
        """Read config.yaml back.

        Raises:
            RunError: there is none.
        """
        if not self.config.is_file():
            raise RunError(f"{self.path}: no config.yaml, so this is not a run's folder")
        try:
            plain = OmegaConf.to_container(OmegaConf.load(self.config))
            assert isinstance(plain, dict)
            return RunConfig.checked({str(key): value for key, value in plain.items()})
        except Exception as error:  # a parser reports a damaged file in many ways
            raise RunError(f"{self.config} is damaged, or was edited: {error}") from error

    def write_json(self, path: Path, content: dict[str, Any]) -> None:
        """Write one of the folder's JSON files."""
        write_atomically(path, (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())


def _comparable(config: RunConfig) -> list[str]:
    """Return the settings as lines, without the run's name and place, which are the same folder anyway."""
    plain = config.model_dump(mode="json", exclude={"run", "stages"})
    return OmegaConf.to_yaml(OmegaConf.create(plain)).splitlines()


def refuse_damaged(checkpoint: Path) -> None:
    """Check a checkpoint that another package is about to read, against the checksum beside it.

    Raises:
        RunError: its bytes are not those that were written, or cannot be read.
    """
    try:
        verify_checkpoint(checkpoint)
    except DamagedCheckpointError as error:
        raise RunError(str(error)) from error
    except OSError as error:
        raise RunError(f"{checkpoint}: cannot be read ({error.strerror})") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        RunError: missing or damaged.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such checkpoint; the run has not finished an epoch yet")
    try:
        verify_checkpoint(path)
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except DamagedCheckpointError as error:
        raise RunError(str(error)) from error
    except Exception as error:  # torch.load reports a damaged or hostile file by many exceptions
        raise RunError(f"{path}: not a readable checkpoint ({error})") from error
    return checkpoint
