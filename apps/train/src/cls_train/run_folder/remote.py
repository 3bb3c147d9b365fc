"""Keep the remote copy of a run, `run.remote`, while a command works on the run."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from loguru import logger

from cls_callbacks import LeaseError, RemoteConflictError, RemoteMirror, RemoteStorageError
from cls_export.contract.run_layout import RunPaths
from cls_train.composition.config import RunConfig
from cls_train.errors import RunError, RunFailedError
from cls_train.run_folder.run_lock import acquire_lock
from cls_train.run_folder.state import remove_stale_drafts
from cls_train.run_folder.write_errors import failed_writes

FLUSH_SECONDS = 20.0
"""How long an interrupted command pushes. Machines that disappear give notice of 30 seconds (Google
Cloud) to two minutes (AWS), and SLURM waits for 30 seconds by default."""

_ECHO_SECONDS = 1.0
"""Ignore Ctrl-C this soon: `uv run` forwards a signal that the process group has received."""


@contextmanager
def mirrored(config: RunConfig, run: RunPaths) -> Iterator[RemoteMirror | None]:
    """Own the remote copy of a run during the block, and yield it; None without `run.remote`.

    At the start, a newer remote run is fetched. At the end, everything is pushed. If the block is
    interrupted or fails, what can be pushed in `FLUSH_SECONDS` is.

    Raises:
        RunError: Another process owns the run, the remote folder cannot be used, or it holds
            another run.
        RunFailedError: The disk is full, or the finished run could not be pushed.
    """
    if config.run.remote is None:
        yield None
        return

    with _explained_errors(), RemoteMirror.open(config.run.remote, run) as mirror:
        _pull(mirror, run)
        try:
            yield mirror
        except LeaseError:  # the files belong to the other machine now
            raise
        except BaseException:
            if mirror.has_started:
                _push_in_time(mirror)
            raise
        _push_all(mirror, run)


def check_remote(config: RunConfig, run: RunPaths) -> None:
    """Check that a run can be pushed, without fetching it.

    Raises:
        RunError: The remote folder cannot be used, another process of this machine owns the run,
            or the remote run is newer and finished.
    """
    if config.run.remote is None:
        return
    with _explained_errors():
        mirror = RemoteMirror.open(config.run.remote, run)
        mirror.check_usable()
        if not mirror.is_newer():
            return
        if mirror.is_finished():
            raise RunError(
                f"run {run.path.name!r} is finished in {mirror.folder.url}; choose another "
                "run.name, or repeat the command without --check to fetch the run"
            )
        logger.info("{} is newer than {}, and will be fetched first", mirror.folder.url, run.path)


@contextmanager
def _explained_errors() -> Iterator[None]:
    try:
        yield
    except (LeaseError, RemoteConflictError, RemoteStorageError) as error:
        raise RunError(str(error)) from error


def _pull(mirror: RemoteMirror, run: RunPaths) -> None:
    if not mirror.is_newer():
        return
    with failed_writes(run):
        run.path.mkdir(parents=True, exist_ok=True)
        acquire_lock(run)
        remove_stale_drafts(run)
        mirror.pull()


def _push_in_time(mirror: RemoteMirror) -> None:
    started = time.monotonic()
    try:
        with _ignored_sigterm():
            mirror.flush(FLUSH_SECONDS)
    except (LeaseError, RemoteStorageError) as error:
        logger.warning(
            "not everything was pushed ({}). Repeat the command on this machine to push the rest",
            error,
        )
    else:
        seconds = time.monotonic() - started
        logger.info("pushed everything to {} in {:.1f} seconds", mirror.folder.url, seconds)


def _push_all(mirror: RemoteMirror, run: RunPaths) -> None:
    try:
        mirror.flush()
    except RemoteStorageError as error:
        raise RunFailedError(
            f"run {run.path} is complete, but was not pushed: {error}, then repeat the command "
            f"with run.name={run.path.name} to push it"
        ) from error


@contextmanager
def _ignored_sigterm() -> Iterator[None]:
    """Ignore SIGTERM: `uv run` repeats it, and torchrun sends it when another rank has ended.

    Ctrl-C ends the process, unless it comes with the signal that ended training.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    started = time.monotonic()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        if time.monotonic() - started > _ECHO_SECONDS:
            raise KeyboardInterrupt

    handlers: dict[signal.Signals, Any] = {
        signal.SIGTERM: signal.SIG_IGN,
        signal.SIGINT: on_interrupt,
    }
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
