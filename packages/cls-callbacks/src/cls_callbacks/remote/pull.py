"""Fetch a run from remote storage, if the state there is newer than the local one."""

import os
from pathlib import Path, PurePosixPath

import torch
from loguru import logger

from cls_callbacks.checkpointing.checkpoint_files import (
    compute_checksum,
    read_checksums,
    remove_checkpoint,
    write_checksums,
)
from cls_callbacks.remote.lease import LEASE_FOLDER
from cls_callbacks.remote.records import LocalRecord, RemoteRecord
from cls_callbacks.remote.snapshot import (
    BEST,
    LAST,
    MACHINE_FILES,
    MARKERS,
    PREVIOUS,
    count_stages,
)
from cls_callbacks.remote.storage import RemoteFolder
from cls_callbacks.remote.storage_errors import RemoteStorageError
from cls_export.contract.run_layout import CHECKPOINTS_FOLDER, RunPaths

_CONFIG = "config.yaml"
_CHECKPOINT_PREFIX = f"{CHECKPOINTS_FOLDER}/"


class RemoteConflictError(RuntimeError):
    """The local folder and the remote one hold different runs."""


def is_remote_newer(run: RunPaths, folder: RemoteFolder) -> bool:
    """Return whether the files of a run should be fetched.

    A local folder that this or another machine pushed last is kept, and so is one that trained
    further than the remote state while the storage could not be reached.

    Raises:
        RemoteConflictError: The two folders hold different runs, or the remote one holds no run.
        RemoteStorageError: The storage cannot be read.
    """
    sizes = list_remote_files(folder)
    remote = RemoteRecord.read(folder)
    local = LocalRecord.read(run)
    if not sizes:
        if local is not None and local.is_pulling:
            raise RemoteConflictError(
                f"{run.path} was fetched from {folder.url} in part, and that folder is empty now; "
                f"delete {run.path}, or correct run.remote"
            )
        return False
    if _CONFIG not in sizes and remote is None:
        raise RemoteConflictError(
            f"{folder.url} is not the folder of a run: it holds {min(sizes)!r} and "
            f"no {_CONFIG}; choose another run.name or run.remote"
        )

    has_remote_checkpoint = LAST in sizes or PREVIOUS in sizes
    if local is not None and local.is_pulling:
        return True
    if not _has_checkpoint(run):
        return has_remote_checkpoint
    if local is None:
        if has_remote_checkpoint:
            raise _conflict(run, folder, "was never pushed there")
        return False
    if remote is None:
        return False
    if local.run != remote.run:
        raise _conflict(run, folder, "is another run of that name")
    if remote.push in local.pushes:
        return False

    local_stages = count_stages([marker for marker in MARKERS if (run.path / marker).exists()])
    local_progress = (read_step(run), local_stages)
    is_newer = (remote.step, remote.stages) >= local_progress
    if not is_newer:
        logger.warning(
            "{} (step {}) has trained further than {} (step {}), and will replace its files",
            run.path,
            local_progress[0],
            folder.url,
            remote.step,
        )
    return is_newer


def pull(run: RunPaths, folder: RemoteFolder) -> None:
    """Fetch all files of a run, the last file of each stage last.

    If the process dies midway, `is_remote_newer` is true the next time. Older local files that the
    remote run does not have remain, except checkpoints and the last files of stages.

    Raises:
        OSError: The local disk is full, or the run folder cannot be written.
        RemoteStorageError: A file cannot be read, or best.ckpt or all other checkpoints are
            damaged.
    """
    sizes = list_remote_files(folder)
    remote = RemoteRecord.read(folder)
    megabytes = sum(sizes.values()) / 1e6
    logger.info("fetching {} files ({:.1f} MB) from {}", len(sizes), megabytes, folder.url)

    record = LocalRecord.read(run) if remote is None else LocalRecord(remote.run)
    record = record or LocalRecord()
    LocalRecord(record.run, record.pushes, is_pulling=True).write(run)
    for marker in reversed(MARKERS):
        (run.path / marker).unlink(missing_ok=True)

    for name in sizes:
        if name not in MARKERS and not name.startswith(_CHECKPOINT_PREFIX):
            folder.download(name, run.path / name)
    _pull_checkpoints(run, folder, sizes)
    for marker in MARKERS:
        if marker in sizes:
            folder.download(marker, run.path / marker)

    pushes = record.pushes if remote is None else (remote.push,)
    LocalRecord(record.run, pushes).write(run)


def list_remote_files(folder: RemoteFolder) -> dict[str, int]:
    """Return the bytes of each file of a run by name, without those of the mirror itself."""
    sizes = {}
    for name, size in folder.list_sizes().items():
        is_internal = name in MACHINE_FILES or name.startswith(f"{LEASE_FOLDER}/")
        if not is_internal and _is_inside(name):
            sizes[name] = size
    return sizes


def read_step(run: RunPaths) -> int:
    """Return the optimizer steps of the newest readable checkpoint; -1 without one."""
    for path in (run.last, run.next, run.previous):
        try:
            checkpoint = torch.load(path, mmap=True, weights_only=True, map_location="cpu")
            return int(checkpoint["global_step"])
        except Exception:  # a damaged file raises many kinds of errors
            continue
    return -1


def _pull_checkpoints(run: RunPaths, folder: RemoteFolder, sizes: dict[str, int]) -> None:
    for path in (run.next, run.previous):
        remove_checkpoint(path)
    _remove_other_epochs(run, sizes)

    # Fetch best.ckpt first: a last.ckpt must not contain the score of a best.ckpt that is missing.
    if BEST in sizes and not _pull_checkpoint(run, folder, BEST):
        raise RemoteStorageError(
            f"{folder.url}/{BEST} does not match its .sha256 file. Restore it, or choose another "
            "run.name to start again",
            is_permanent=True,
        )
    if BEST not in sizes:
        remove_checkpoint(run.best)
    for name in sizes:
        is_epoch = PurePosixPath(name).match(f"{CHECKPOINTS_FOLDER}/epoch_*.ckpt")
        if is_epoch and not _pull_checkpoint(run, folder, name):
            logger.warning("{}/{} is damaged, and was not fetched", folder.url, name)

    candidates = [name for name in (LAST, PREVIOUS) if name in sizes]
    for name in candidates:
        if _pull_checkpoint(run, folder, name):
            return
        logger.warning("{}/{} does not match its .sha256 file", folder.url, name)
    if candidates:
        raise RemoteStorageError(
            f"{folder.url}: last.ckpt and previous.ckpt are damaged. Restore one of them, or "
            "choose another run.name to start again",
            is_permanent=True,
        )


def _remove_other_epochs(run: RunPaths, sizes: dict[str, int]) -> None:
    for path in run.checkpoints.glob("epoch_*.ckpt"):
        if f"{CHECKPOINTS_FOLDER}/{path.name}" not in sizes:
            remove_checkpoint(path)


def _pull_checkpoint(run: RunPaths, folder: RemoteFolder, name: str) -> bool:
    """Fetch a checkpoint with its checksum; return whether they match."""
    path = run.path / name
    checksums = parse_checksums(folder.read(f"{name}.sha256"))
    is_here = path.exists() and bool(set(read_checksums(path)) & set(checksums))
    if not is_here or compute_checksum(path) not in checksums:
        remove_checkpoint(path)
        folder.download(name, path)

    checksum = compute_checksum(path)
    if checksums and checksum not in checksums:
        remove_checkpoint(path)
        return False
    write_checksums(path, [checksum])
    return True


def parse_checksums(content: bytes | None) -> list[str]:
    """Return the checksums in a .sha256 file; empty if there is none."""
    lines = (content or b"").decode(errors="replace").splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def _has_checkpoint(run: RunPaths) -> bool:
    return any(path.exists() for path in (run.last, run.next, run.previous))


def _is_inside(name: str) -> bool:
    """Whether a name from a bucket stays inside the run folder."""
    path = PurePosixPath(name)
    is_plain = not path.is_absolute() and ".." not in path.parts and "\\" not in name
    return is_plain and "\0" not in name and not Path(name).drive and os.fspath(path) == name


def _conflict(run: RunPaths, folder: RemoteFolder, reason: str) -> RemoteConflictError:
    return RemoteConflictError(
        f"{run.path} and {folder.url} hold different runs: the local one {reason}. Choose another "
        "run.name, or move one of the two folders away"
    )
