"""Lock a run folder, so that only one process trains a run."""

import json
import os
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout
from loguru import logger

from cls_export.contract.run_layout import RunPaths
from cls_train.errors import RunError
from cls_train.run_folder.run_paths import write_json

_held_locks: dict[Path, FileLock] = {}
"""Locks of this process, by folder. The operating system releases them when the process ends."""


def acquire_lock(run: RunPaths) -> None:
    """Lock a run folder for this process, and record the process in owner.json.

    Raises:
        RunError: Another process trains the run, or the folder cannot be written.
    """
    if run.path.resolve() in _held_locks:
        return

    lock = _acquire(run)
    owner = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    try:
        write_json(run.owner, owner)
    except OSError as error:
        lock.release()
        raise RunError(f"{run.owner}: cannot be written ({error.strerror})") from error
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
        lock = _acquire(run)
        lock.release()


def _acquire(run: RunPaths) -> FileLock:
    lock = FileLock(run.lock, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except NotImplementedError:
        logger.warning(
            "{}: the file system does not support locks; "
            "do not start a second process for this run",
            run.path,
        )
    except Timeout as error:
        raise RunError(
            f"run {run.path.name!r} is being trained by {_describe_owner(run)}; "
            "wait until it ends, or choose another run.name"
        ) from error
    except OSError as error:
        raise RunError(f"{run.lock}: cannot be written ({error.strerror})") from error
    return lock


def _describe_owner(run: RunPaths) -> str:
    try:
        owner = json.loads(run.owner.read_bytes())
        return f"process {owner['process']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # the process has not written it yet
        return "another process"
