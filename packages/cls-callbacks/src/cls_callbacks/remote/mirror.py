"""Keep the remote copy of a run up to date from a background thread."""

import threading
import time
import uuid
from types import TracebackType

from loguru import logger

from cls_callbacks.remote.lease import Lease, LeaseError
from cls_callbacks.remote.pull import (
    RemoteConflictError,
    is_remote_newer,
    list_remote_files,
    pull,
    read_step,
)
from cls_callbacks.remote.push import Pusher
from cls_callbacks.remote.records import NO_PUSH, LocalRecord, RemoteRecord
from cls_callbacks.remote.snapshot import (
    MARKERS,
    SUMMARY,
    Snapshot,
    remove_snapshots,
    take_snapshot,
)
from cls_callbacks.remote.storage import RemoteFolder, open_remote_folder
from cls_callbacks.remote.storage_errors import RemoteStorageError
from cls_export.contract.run_layout import RunPaths

_FIRST_RETRY_SECONDS = 1.0
_LAST_RETRY_SECONDS = 30.0

GIVE_UP_SECONDS = 600.0
"""How long the last push of a run is tried again. Spot machines cost money while they wait."""

_MAX_PERMANENT_FAILURES = 3


class RemoteMirror:
    """The remote copy of a run: own it, fetch it, and push to it. Use it as a context manager.

    `__enter__` takes the lease of the run, and `__exit__` releases it.

    Args:
        run: The local run folder, which need not exist yet.
        folder: The remote folder of the run.
        lease: Its lease.
    """

    def __init__(self, run: RunPaths, folder: RemoteFolder, lease: Lease | None = None) -> None:
        self.run = run
        self.folder = folder
        self.lease = lease or Lease(folder)
        self._pusher = Pusher(folder, self.lease.confirm)
        self._condition = threading.Condition()
        self._waiting: Snapshot | None = None
        self._is_busy = False
        self._is_closed = False
        self._error: Exception | None = None
        self._failed_at: float | None = None
        self._permanent_failures = 0
        self._is_final = False
        self._step = -1
        self._record = LocalRecord()
        self._next_push: str | None = None
        self._retry_at = 0.0
        self._thread: threading.Thread | None = None
        self.pushes = 0
        self.seconds = 0.0
        """Time that the thread spent on pushes."""

    @classmethod
    def open(cls, url: str, run: RunPaths) -> "RemoteMirror":
        """Return the mirror of a run at URL/NAME. Nothing is read or written yet.

        Raises:
            RemoteConflictError: That is the run folder itself, or inside of it.
            RemoteStorageError: The URL cannot be opened.
        """
        folder = open_remote_folder(url, run.path.name)
        own = run.path.resolve()
        path = folder.local_path
        if path is not None and own in (path.resolve(), *path.resolve().parents):
            raise RemoteConflictError(
                f"run.remote={url} is where the run itself is ({run.path}); choose another folder, "
                "on a disk that outlives this machine"
            )
        return cls(run, folder)

    def __enter__(self) -> "RemoteMirror":
        self.folder.check_exists()
        try:
            self.lease.acquire()
        except BaseException:
            self.lease.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()
        self.lease.release()

    @property
    def has_started(self) -> bool:
        """Whether something was pushed, or is about to be."""
        return self._thread is not None

    @property
    def uploaded_bytes(self) -> int:
        """Bytes that were written so far."""
        return self._pusher.uploaded_bytes

    def check_usable(self) -> None:
        """Check that the storage can be written, and that no process of this machine owns the run.

        Raises:
            LeaseError: A process does.
            RemoteStorageError: The storage cannot be used.
        """
        self.folder.check_exists()
        self.lease.check_free()
        probe = f"owner/probe-{uuid.uuid4().hex}"
        self.folder.write(probe, b"")
        self.folder.delete(probe)

    def is_newer(self) -> bool:
        """Return whether `pull` should be called; see `is_remote_newer`."""
        return is_remote_newer(self.run, self.folder)

    def is_finished(self) -> bool:
        """Return whether the remote run is finished."""
        return SUMMARY in list_remote_files(self.folder)

    def pull(self) -> None:
        """Replace the files of the local run by those of the remote one."""
        pull(self.run, self.folder)

    def is_complete(self) -> bool:
        """Return whether the remote copy has everything that the finished local run has."""
        local = LocalRecord.read(self.run)
        remote = RemoteRecord.read(self.folder)
        if local is None or remote is None or remote.push not in local.pushes:
            return False
        return remote.stages == len(MARKERS)

    def push(self, step: int | None = None, *, is_full: bool = False) -> None:
        """Push the files as they are now, from a thread. Returns in milliseconds.

        A snapshot that still waits is replaced. Failures are logged once, and tried again.

        Args:
            step: Optimizer steps of last.ckpt; None if they have not changed.
            is_full: Include logs and the bundle. After training they are always included: what
                the last file of a stage promises must be there.

        Raises:
            LeaseError: Another process has taken the run over.
        """
        self.lease.raise_if_lost()
        if step is not None:
            self._step = step
        if self._thread is None:
            self._start()
        is_full = is_full or self.run.fit.exists()
        try:
            snapshot = take_snapshot(self.run, self._step, is_full=is_full)
        except OSError as error:  # training finds out about a full disk or a deleted folder itself
            logger.warning("{}: not pushed to {}", error, self.folder.url)
            return
        with self._condition:
            if self._waiting is not None:
                self._waiting.remove()
            self._waiting = snapshot
            self._condition.notify_all()

    def flush(self, seconds: float | None = None) -> None:
        """Push all files, and wait until that is done.

        Args:
            seconds: How long to wait; None tries again for up to ten minutes without success.

        Raises:
            LeaseError: Another process has taken the run over.
            RemoteStorageError: Not everything was pushed.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._condition:
            self._is_final = True
            self._retry_at = 0.0
            has_failed = self._error is not None
            self._condition.notify_all()
        if not has_failed:
            self._wait(deadline)  # for the checkpoint, before logs and plots
        self.push(is_full=True)
        self._wait(deadline)

    def _start(self) -> None:
        if self._step < 0:
            self._step = read_step(self.run)
        self._thread = threading.Thread(target=self._push_regularly, name="push", daemon=True)
        self._thread.start()

    def _wait(self, deadline: float | None) -> None:
        with self._condition:
            while self._waiting is not None or self._is_busy:
                self.lease.raise_if_lost()
                self._raise_if_hopeless(deadline)
                self._condition.wait(0.2)  # signals arrive in between
        self.lease.raise_if_lost()

    def _raise_if_hopeless(self, deadline: float | None) -> None:
        now = time.monotonic()
        if deadline is not None and now > deadline:
            reason = self._error or f"{self.folder.url}: the time was too short"
            raise RemoteStorageError(str(reason))
        if not self._is_final or self._error is None or self._failed_at is None:
            return
        is_hopeless = self._permanent_failures >= _MAX_PERMANENT_FAILURES
        is_late = deadline is None and now - self._failed_at > GIVE_UP_SECONDS
        if is_hopeless or is_late:
            raise RemoteStorageError(str(self._error))

    def _close(self) -> None:
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(1)
        remove_snapshots(self.run)
        if self.pushes:
            logger.info(
                "pushed {:.1f} MB to {} in {} pushes, for {:.1f} s in the background",
                self.uploaded_bytes / 1e6,
                self.folder.url,
                self.pushes,
                self.seconds,
            )

    def _push_regularly(self) -> None:
        delay = 0.0
        while True:
            snapshot = self._take_next()
            if snapshot is None:
                return
            started = time.monotonic()
            try:
                self._push(snapshot)
            except LeaseError:
                self._finish(snapshot, is_done=True)
                return
            except Exception as error:  # the run goes on, whatever happens here
                delay = min(max(2 * delay, _FIRST_RETRY_SECONDS), _LAST_RETRY_SECONDS)
                self._report_failure(error, delay)
                self._finish(snapshot, is_done=False)
            else:
                if self._failed_at is not None:
                    logger.info("{}: caught up, all files are pushed", self.folder.url)
                self._error, self._failed_at, self._permanent_failures = None, None, 0
                delay = 0.0
                self.pushes += 1
                self._finish(snapshot, is_done=True)
            self.seconds += time.monotonic() - started

    def _take_next(self) -> Snapshot | None:
        """Wait for a snapshot, and for the time of the next attempt; None at the end."""
        with self._condition:
            while not self._is_closed:
                remaining = self._retry_at - time.monotonic()
                if self._waiting is not None and remaining <= 0:
                    snapshot, self._waiting = self._waiting, None
                    self._is_busy = True
                    return snapshot
                self._condition.wait(None if self._waiting is None else max(0.01, remaining))
        return None

    def _finish(self, snapshot: Snapshot, *, is_done: bool) -> None:
        with self._condition:
            self._is_busy = False
            if not is_done and self._waiting is None and not self._is_closed:
                self._waiting = snapshot
            else:
                snapshot.remove()
            self._condition.notify_all()

    def _report_failure(self, error: Exception, delay: float) -> None:
        """Log the first of several failures, and set the time of the next attempt."""
        is_permanent = isinstance(error, RemoteStorageError) and error.is_permanent
        with self._condition:
            self._error = error
            self._permanent_failures += is_permanent
            self._retry_at = time.monotonic() + delay
            is_first = self._failed_at is None
            if is_first:
                self._failed_at = time.monotonic()
        if is_first:
            logger.warning("could not push: {}. The run goes on, and pushing is tried again", error)

    def _push(self, snapshot: Snapshot) -> None:
        if self._next_push is None:
            push = uuid.uuid4().hex
            record = LocalRecord.read(self.run) or LocalRecord().with_push(NO_PUSH)
            self._record = record.with_push(push)
            self._record.write(self.run)
            if RemoteRecord.read(self.folder) is None:
                RemoteRecord(record.run, NO_PUSH, step=-1, stages=0).write(self.folder)
            self._next_push = push
        self._pusher.push(snapshot)
        self.lease.confirm()
        RemoteRecord(self._record.run, self._next_push, snapshot.step, snapshot.stages).write(
            self.folder
        )
        self._next_push = None
