"""Ensure that one machine at a time trains a run in remote storage.

Owners are numbered. A new owner creates the file with the next number, which only one of several
machines can do, and the highest number owns the run. The owner rewrites its file at intervals. A
machine that finds the file of another one watches it, and takes over if the file does not change
during the time to live. Clocks of two machines are never compared.
"""

import json
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from loguru import logger

from cls_callbacks.remote.storage import RemoteFolder
from cls_callbacks.remote.storage_errors import RemoteStorageError

LEASE_FOLDER = "owner"

TIME_TO_LIVE = 60.0
"""Seconds without a renewal after which another machine takes over. Three renewals may fail, and
starting a virtual machine takes longer."""

_RENEWALS_PER_LIFE = 4
_RELEASE_SECONDS = 5.0
"""How long the end of a command waits for the release of its lease."""

_SETTLE_SECONDS = 2.0
"""Storage without exclusive creation shows another machine's file within this time."""


class LeaseError(RuntimeError):
    """Another process trains the run; the message names it."""


class LeaseLostError(LeaseError):
    """Another process has taken the run over while this one could not renew its lease."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The content of an owner file.

    Attributes:
        token: Random text, new for each owner.
        host: Name of the machine.
        boot: The boot of the machine and the process namespace (a container). Process numbers can
            be compared only if host and boot are equal.
        process: Process number.
        started: When the process started, as the kernel counts it, because numbers are reused.
        since: Local time, for messages.
        seconds: Time to live.
        renewals: Number of renewals, so that the file changes with each one.
        is_released: Whether the owner has finished its work.
    """

    token: str
    host: str
    boot: str
    process: int
    started: str
    since: str
    seconds: float
    renewals: int = 0
    is_released: bool = False

    @classmethod
    def of_this_process(cls, seconds: float) -> "Owner":
        """Describe this process."""
        return cls(
            token=uuid.uuid4().hex,
            host=socket.gethostname(),
            boot=_read_boot(),
            process=os.getpid(),
            started=_read_start_time(os.getpid()),
            since=time.strftime("%Y-%m-%d %H:%M:%S"),
            seconds=seconds,
        )

    @classmethod
    def from_json(cls, content: bytes | None) -> "Owner | None":
        """Read a file; None if it is missing or half-written."""
        try:
            owner = cls(**json.loads(content or b""))
            float(owner.seconds)
        except (TypeError, ValueError):
            return None
        return owner

    def to_json(self) -> bytes:
        """Return the content of the file."""
        return json.dumps(asdict(self), indent=2).encode() + b"\n"

    def describe(self) -> str:
        """Return the owner's name for messages."""
        return f"process {self.process} on {self.host}, since {self.since}"


class Lease:
    """The right to train a run; see the module.

    Args:
        folder: The remote folder of the run.
        owner: This process. Its `seconds` must not differ between machines.
    """

    def __init__(self, folder: RemoteFolder, owner: Owner | None = None) -> None:
        self._folder = folder
        self._owner = owner or Owner.of_this_process(TIME_TO_LIVE)
        self._number = 0
        self._confirmed_at = 0.0
        self._successor: str | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lease, which is renewed by a thread from then on.

        Waits while the owner may still be alive, at most for its time to live.

        Raises:
            LeaseError: Another process owns the run.
            RemoteStorageError: The storage cannot be used.
        """
        while not self._try_to_acquire():
            time.sleep(0.1)
        self._thread = threading.Thread(target=self._renew_regularly, name="lease", daemon=True)
        self._thread.start()

    def check_free(self) -> None:
        """Check that no living process of this machine owns the run, without waiting.

        Raises:
            LeaseError: A process does.
        """
        _, owner = self._find_owner()
        if owner is not None and not owner.is_released and self._is_alive_here(owner):
            raise self._owned_error(owner)

    def confirm(self) -> None:
        """Make sure, just before writing, that this process still owns the run.

        Raises:
            LeaseLostError: Another process does.
            RemoteStorageError: That is unknown, because the storage does not answer.
        """
        self.raise_if_lost()
        age = _get_seconds() - self._confirmed_at
        if age > self._owner.seconds / 2:
            self._renew()

    def raise_if_lost(self) -> None:
        """Raise a `LeaseLostError` if another process is known to have taken the run over."""
        if self._successor is not None:
            raise LeaseLostError(
                f"{self._folder.url}: {self._successor} has taken over this run, because this "
                f"process could not renew its lease for {self._owner.seconds:.0f} seconds. "
                "This process stops, and the other one continues the run"
            )

    def release(self) -> None:
        """Let the next process start at once; log a warning if the storage does not answer."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(1)
            self._thread = None
        if self._number == 0 or self._successor is not None:
            return
        # In a thread, because a request to a server that hangs can take minutes.
        thread = threading.Thread(target=self._try_to_release, name="release", daemon=True)
        thread.start()
        thread.join(_RELEASE_SECONDS)
        if thread.is_alive():
            self._warn_unreleased(f"{self._folder.url}: the storage does not answer")

    def _try_to_release(self) -> None:
        try:
            self._renew(is_released=True)
        except (LeaseLostError, RemoteStorageError) as error:
            self._warn_unreleased(str(error))
        self._number = 0

    def _warn_unreleased(self, reason: str) -> None:
        logger.warning(
            "the lease was not released ({}), so another machine waits {:.0f} seconds",
            reason,
            self._owner.seconds,
        )

    def _try_to_acquire(self) -> bool:
        number, owner = self._find_owner()
        if number > 0 and (owner is None or not owner.is_released):
            self._wait_until_dead(number, owner)

        mine = _file_name(number + 1)
        if not self._folder.create(mine, self._owner.to_json()):
            found = Owner.from_json(self._folder.read(mine))
            # An answer may have been lost, and the request repeated.
            if found is None or found.token != self._owner.token:
                return False
        elif not self._is_create_exclusive(mine):
            time.sleep(_SETTLE_SECONDS)

        newest, owner = self._find_owner()
        if newest != number + 1 or owner is None or owner.token != self._owner.token:
            if newest > number + 1:
                self._folder.delete(mine)
            return False

        self._number = newest
        self._confirmed_at = _get_seconds()
        self._delete_older_files()
        return True

    def _is_create_exclusive(self, name: str) -> bool:
        """Whether the storage really refuses to create a file twice; some S3 servers do not."""
        if self._folder.has_exclusive_create:
            return True
        if not self._folder.is_object_store:
            return False
        return not self._folder.create(name, self._owner.to_json())

    def _find_owner(self) -> tuple[int, Owner | None]:
        """Return the highest number and its file; 0 without one."""
        numbers = self._list_numbers()
        if not numbers:
            return 0, None
        number = max(numbers)
        return number, Owner.from_json(self._folder.read(_file_name(number)))

    def _list_numbers(self) -> list[int]:
        numbers = []
        for name in self._folder.list_sizes(LEASE_FOLDER):
            number = name.removeprefix(f"{LEASE_FOLDER}/").removesuffix(".json")
            if number.isdigit():
                numbers.append(int(number))
        return numbers

    def _wait_until_dead(self, number: int, owner: Owner | None) -> None:
        """Return when the owner has died or finished.

        Raises:
            LeaseError: It is alive.
        """
        if owner is not None and self._is_of_this_machine(owner):
            if self._is_alive_here(owner):
                raise self._owned_error(owner)
            logger.info("taking over from {}, which has ended", owner.describe())
            return

        seconds = self._owner.seconds if owner is None else owner.seconds
        name = "an unknown process" if owner is None else owner.describe()
        until = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
        logger.info(
            "{} is owned by {}; waiting until {} to see whether it renews its lease",
            self._folder.url,
            name,
            until,
        )
        deadline = _get_seconds() + seconds
        while _get_seconds() < deadline:
            time.sleep(min(1.0, seconds / 20))
            content = Owner.from_json(self._folder.read(_file_name(number)))
            if content != owner and content is not None:
                if content.is_released:
                    return
                raise self._owned_error(content)
        logger.info("taking over from {}, which has not renewed its lease", name)

    def _is_of_this_machine(self, owner: Owner) -> bool:
        is_known = owner.boot != ""
        return is_known and (owner.host, owner.boot) == (self._owner.host, self._owner.boot)

    def _is_alive_here(self, owner: Owner) -> bool:
        if not self._is_of_this_machine(owner):
            return False
        return owner.started == _read_start_time(owner.process)

    def _owned_error(self, owner: Owner) -> LeaseError:
        return LeaseError(
            f"{self._folder.url} is being trained by {owner.describe()}; "
            "wait until it ends, or choose another run.name"
        )

    def _delete_older_files(self) -> None:
        for number in self._list_numbers():
            if number < self._number:
                self._folder.delete(_file_name(number))

    def _renew(self, *, is_released: bool = False) -> None:
        with self._lock:
            if self._stop.is_set() and not is_released:
                return  # this thread was late
            started = _get_seconds()
            number, owner = self._find_owner()
            is_mine = owner is None or owner.token == self._owner.token
            if number > self._number or not is_mine:
                self._successor = "another process" if owner is None else owner.describe()
                self.raise_if_lost()
            self._owner = replace(
                self._owner, renewals=self._owner.renewals + 1, is_released=is_released
            )
            self._folder.write(_file_name(self._number), self._owner.to_json())
            self._confirmed_at = started

    def _renew_regularly(self) -> None:
        has_failed = False
        while not self._stop.wait(self._owner.seconds / _RENEWALS_PER_LIFE):
            try:
                self._renew()
            except LeaseLostError as error:
                logger.error("{}", error)
                return
            except RemoteStorageError as error:
                if not has_failed:
                    logger.warning("the lease cannot be renewed: {}. Trying again", error)
                has_failed = True
            else:
                if has_failed:
                    logger.info("{}: the lease is renewed again", self._folder.url)
                has_failed = False


def _file_name(number: int) -> str:
    return f"{LEASE_FOLDER}/{number:08d}.json"


def _get_seconds() -> float:
    """Return a clock that only goes forward, and also while the machine is suspended."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def _read_boot() -> str:
    """Return the identity of this boot and process namespace; empty if it is unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # not a path
    except OSError:
        return ""
    return f"{boot} {namespace}"


def _read_start_time(process: int) -> str:
    """Return when a process started, in clock ticks since the boot; empty if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    is_zombie = fields[0] == "Z"
    return "" if is_zombie else fields[19]
