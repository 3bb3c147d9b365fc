"""Hold a consistent state of a run's files while training replaces them."""

import itertools
import os
import shutil
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from cls_callbacks.checkpointing.checkpoint_files import read_checksums
from cls_export.contract.files import delete, draft_path
from cls_export.contract.run_layout import CHECKPOINTS_FOLDER, RunPaths

SUMMARY = "summary.json"

MARKERS = ("fit.json", "evaluation.json", SUMMARY)
"""The last file of each stage, in order. They tell the state of a run; see docs/runs.md."""

BEST = f"{CHECKPOINTS_FOLDER}/best.ckpt"
LAST = f"{CHECKPOINTS_FOLDER}/last.ckpt"
PREVIOUS = f"{CHECKPOINTS_FOLDER}/previous.ckpt"

MACHINE_FILES = ("run.lock", "owner.json", "remote.json")
"""Files that describe this machine."""

_UNPUSHED_CHECKPOINTS = ("next.ckpt", "previous.ckpt")
"""next.ckpt becomes last.ckpt at once; previous.ckpt is copied from last.ckpt in the storage."""

_GROWING = ("train.log", "tensorboard/")
"""Files that are appended to; a link to one would not hold its state."""

_counter = itertools.count()


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """One file of a snapshot.

    Attributes:
        path: A hard link to the file, or a copy of it.
        version: Changes whenever the file is replaced.
        checksums: The valid SHA-256 sums of a checkpoint; empty for other files.
    """

    path: Path
    version: tuple[int, int, int]
    checksums: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Files of a run by name, as they were together at one moment.

    Attributes:
        files: By name, relative to the run folder, with `/` on any system.
        step: Optimizer steps of last.ckpt; -1 if they are unknown.
        is_full: Whether all files are included, rather than those that training needs.
    """

    folder: Path
    files: dict[str, SnapshotFile]
    step: int
    is_full: bool

    @property
    def stages(self) -> int:
        """The number of completed stages: training, evaluation, report."""
        return count_stages(self.files)

    def remove(self) -> None:
        """Delete the links."""
        delete(self.folder)


def take_snapshot(run: RunPaths, step: int, *, is_full: bool) -> Snapshot:
    """Link the files of a run into a hidden folder beside them; copy them without hard links.

    Args:
        run: The run, no file of which may be written during the call, except growing ones.
        step: Optimizer steps of last.ckpt.
        is_full: Include plots, the bundle, logs, and so on, rather than what training needs.

    Raises:
        OSError: The run folder was deleted, or the disk is full.
    """
    folder = _get_parent(run) / str(next(_counter))
    files = {}
    for name in list_files(run, is_full=is_full):
        source = run.path / name
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            version = get_version(source)
            _link_or_copy(source, target, is_growing=name.startswith(_GROWING))
        except FileNotFoundError:
            if not run.path.is_dir():
                raise
            continue  # deleted in the meantime, such as a draft of a logger
        checksums = read_checksums(source) if name.endswith(".ckpt") else []
        files[name] = SnapshotFile(target, version, tuple(checksums))
    if run.config.name not in files:  # an empty snapshot would delete files in the storage
        delete(folder)
        raise FileNotFoundError(f"{run.path} was deleted, or has no {run.config.name}")
    return Snapshot(folder, files, step, is_full)


def remove_snapshots(run: RunPaths) -> None:
    """Delete all snapshots of this process."""
    delete(_get_parent(run))


def list_files(run: RunPaths, *, is_full: bool) -> list[str]:
    """Return the names of the files that are pushed, without the checksums of checkpoints."""
    names = []
    for path in _iterate_files(run, is_full=is_full):
        name = path.relative_to(run.path).as_posix()
        is_hidden = any(part.startswith(".") for part in name.split("/"))
        is_checkpoint = path.parent == run.checkpoints
        if is_hidden or name in MACHINE_FILES:
            continue
        if is_checkpoint and (path.suffix != ".ckpt" or path.name in _UNPUSHED_CHECKPOINTS):
            continue
        names.append(name)
    return sorted(names)


def get_version(path: Path) -> tuple[int, int, int]:
    """Return numbers that change whenever a file is replaced or written to."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def count_stages(names: Container[str]) -> int:
    """Return the number of the last complete stage, given the names of a run's files.

    A run without an evaluation can be finished, too.
    """
    count = 0
    for number, marker in enumerate(MARKERS, start=1):
        if marker in names:
            count = number
    return count


def _get_parent(run: RunPaths) -> Path:
    return draft_path(run.path / "push")  # a draft, so that it is deleted if this process dies


def _iterate_files(run: RunPaths, *, is_full: bool) -> Iterator[Path]:
    if is_full:
        folders = [run.path]
        paths: Iterator[Path] = run.path.rglob("*")
    else:
        folders = [run.path, run.checkpoints, run.predictions, run.plots]
        paths = itertools.chain.from_iterable(
            folder.iterdir() for folder in folders if folder.is_dir()
        )
    for path in paths:
        is_log = not is_full and path.name == run.log.name
        if not is_log and path.is_file() and not path.is_symlink():
            yield path


def _link_or_copy(source: Path, target: Path, *, is_growing: bool) -> None:
    if not is_growing:
        try:
            os.link(source, target)
        except FileNotFoundError:
            raise
        except OSError:  # the file system has no hard links
            pass
        else:
            return
    shutil.copy2(source, target)  # with the time of its last change
