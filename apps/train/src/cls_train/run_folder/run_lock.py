"""Lock a run folder, so that only one process trains a run."""

import hashlib
import json
import os
import socket
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout
from loguru import logger

from cls_export.contract.run_layout import RunPaths
from cls_train.errors import RunError, RunFailedError
from cls_train.run_folder.run_paths import write_json
from cls_train.run_folder.write_errors import WITHOUT_LOCKS, describe_os_error, failed_writes

_held_locks: dict[Path, FileLock] = {}
"""Locks of this process, by folder. The operating system releases them when the process ends."""


def acquire_lock(run: RunPaths) -> None:
    """Lock a run folder for this process, and record the process in owner.json.

    On a file system without locks, a file in the temporary folder is locked instead, which only
    processes of this host notice.

    Raises:
        RunError: Another process trains the run.
        RunFailedError: The folder cannot be written.
    """
    if run.path.resolve() in _held_locks:
        return

    lock = _acquire(run, is_final=True)
    owner = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    try:
        with failed_writes(run):
            write_json(run.owner, owner)
    except RunFailedError:
        lock.release()
        raise
    _held_locks[run.path.resolve()] = lock


def release_lock(run: RunPaths) -> None:
    """Release the lock if this process holds it."""
    path = run.path.resolve()
    lock = _held_locks.pop(path, None)

    if lock is not None:
        run.owner.unlink(missing_ok=True)
        lock.release()


def check_unlocked(run: RunPaths) -> None:
    """Check that no other process trains the run.

    Raises:
        RunError: Another process does; the message names it.
    """
    is_held = run.path.resolve() in _held_locks
    if run.lock.exists() and not is_held:
        lock = _acquire(run, is_final=False)
        lock.release()


def _acquire(run: RunPaths, *, is_final: bool) -> FileLock:
    try:
        return _lock_file(run.lock)
    except Timeout as error:
        raise _locked_error(run) from error
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise RunFailedError(
                f"{describe_os_error(error, run)}, then repeat the command"
            ) from error

    if is_final:
        logger.warning(
            "{}: the file system does not support locks. A second process for this run is noticed "
            "on this host only; do not start one on another host",
            run.path,
        )
    try:
        return _lock_file(_local_lock_path(run))
    except Timeout as error:
        raise _locked_error(run) from error
    except OSError as error:
        raise RunFailedError(
            f"{error.filename or tempfile.gettempdir()}: cannot be locked ({error.strerror}), and "
            f"neither can {run.lock}; choose another run.root, or set TMPDIR to a local folder"
        ) from error


def _lock_file(path: Path) -> FileLock:
    lock = FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except NotImplementedError as error:  # filelock's error for ENOSYS
        raise OSError(WITHOUT_LOCKS[0], os.strerror(WITHOUT_LOCKS[0]), str(path)) from error
    return lock


def _local_lock_path(run: RunPaths) -> Path:
    path = str(run.path.resolve())
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()
    return Path(tempfile.gettempdir()) / f"cls-train-{digest[:24]}.lock"


def _locked_error(run: RunPaths) -> RunError:
    return RunError(
        f"run {run.path.name!r} is being trained by {_describe_owner(run)}; "
        "wait until it ends, or choose another run.name"
    )


def _describe_owner(run: RunPaths) -> str:
    try:
        owner = json.loads(run.owner.read_bytes())
        return f"process {owner['process']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # the process has not written it yet
        return "another process"
