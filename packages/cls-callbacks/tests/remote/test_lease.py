"""One owner at a time, whichever machines ask, and however they end."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from loguru import logger

from cls_callbacks import LeaseError, open_remote_folder
from cls_callbacks.remote import lease as lease_module
from cls_callbacks.remote.lease import Lease, LeaseLostError, Owner
from cls_callbacks.remote.storage import RemoteFolder

SECONDS = 1.0
"""A short time to live."""

SILENT_SECONDS = 0.2
"""A shorter one, where nobody renews."""


@pytest.fixture
def folder(tmp_path: Path) -> RemoteFolder:
    return open_remote_folder(str(tmp_path), "run")


def on_host(name: str, seconds: float = SECONDS) -> Owner:
    """Describe this process as one of another machine."""
    return replace(Owner.of_this_process(seconds), host=name, boot=f"boot of {name}")


@pytest.fixture
def leases(folder: RemoteFolder) -> Iterator[dict[str, Lease]]:
    """Leases of two machines, which are released at the end."""
    leases = {name: Lease(folder, on_host(name)) for name in ("a", "b")}
    yield leases
    for lease in leases.values():
        lease.release()


def write_owner(folder: RemoteFolder, owner: Owner, number: int = 1) -> None:
    folder.write(f"owner/{number:08d}.json", owner.to_json())


def test_a_free_run_is_taken_at_once_and_its_old_files_are_deleted(folder: RemoteFolder) -> None:
    for number in range(1, 4):
        lease = Lease(folder, on_host("a"))
        lease.acquire()
        lease.release()
        assert list(folder.list_sizes()) == [f"owner/{number:08d}.json"]


def test_a_living_process_of_this_machine_is_refused_at_once(folder: RemoteFolder) -> None:
    first = Lease(folder)
    first.acquire()
    with pytest.raises(LeaseError, match=f"is being trained by process {os.getpid()} on"):
        Lease(folder).acquire()
    with pytest.raises(LeaseError, match="wait until it ends, or choose another run"):
        Lease(folder).check_free()
    first.release()
    Lease(folder).check_free()


def test_a_machine_that_renews_is_not_replaced(leases: dict[str, Lease]) -> None:
    leases["a"].acquire()
    with pytest.raises(LeaseError, match=r"is being trained by process \d+ on a, since"):
        leases["b"].acquire()
    leases["a"].confirm()


@pytest.mark.parametrize("since", ["2000-01-01 00:00:00", "2999-01-01 00:00:00"])
def test_a_silent_machine_is_replaced_after_its_time_to_live_whatever_its_clock(
    folder: RemoteFolder, since: str
) -> None:
    write_owner(folder, replace(on_host("silent", SILENT_SECONDS), since=since))
    lease = Lease(folder, on_host("b", SILENT_SECONDS))
    started = time.monotonic()
    lease.acquire()
    assert time.monotonic() - started >= SILENT_SECONDS
    lease.release()


def test_a_release_ends_the_wait_of_another_machine(leases: dict[str, Lease]) -> None:
    owner = on_host("a")
    folder = leases["b"]._folder
    write_owner(folder, owner)
    release = replace(owner, is_released=True)
    timer = threading.Timer(0.3, lambda: write_owner(folder, release))
    timer.start()
    leases["b"].acquire()
    timer.join()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"token": 1}', b'"text"', b"null"])
def test_a_damaged_owner_file_is_replaced_after_a_time_to_live(
    folder: RemoteFolder, content: bytes
) -> None:
    folder.write("owner/00000007.json", content)
    lease = Lease(folder, on_host("b", SILENT_SECONDS))
    lease.acquire()
    assert list(folder.list_sizes()) == ["owner/00000008.json"]
    lease.release()


ACQUIRE_AND_WAIT = """
import sys, time
from cls_callbacks import open_remote_folder
from cls_callbacks.remote.lease import Lease
Lease(open_remote_folder(sys.argv[1], "run")).acquire()
print("acquired", flush=True)
time.sleep(60)
"""


def test_a_killed_process_of_this_machine_is_replaced_without_waiting(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ACQUIRE_AND_WAIT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"acquired\n"
        process.kill()

    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    lease = Lease(open_remote_folder(str(tmp_path), "run"))
    lease.acquire()
    lease.release()
    logger.remove(sink)
    assert len(lines) == 1
    assert "taking over from process" in lines[0]


def test_a_reused_process_number_is_not_taken_for_the_owner(folder: RemoteFolder) -> None:
    write_owner(folder, replace(Owner.of_this_process(SECONDS), started="1", token="x"))
    lease = Lease(folder)
    lease.acquire()
    lease.release()


class WithoutExclusiveCreate(RemoteFolder):
    """Object storage that ignores the condition of a request, as some servers do."""

    def create(self, name: str, content: bytes) -> bool:
        self.write(name, content)
        return True


@pytest.mark.parametrize("is_exclusive", [True, False])
@pytest.mark.parametrize("is_stale", [True, False])
def test_one_of_several_takers_wins(
    tmp_path: Path, is_exclusive: bool, is_stale: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "_SETTLE_SECONDS", 0.5)
    url = str(tmp_path) if is_exclusive else f"memory://{tmp_path.name}"
    folder = open_remote_folder(url, "run")
    if not is_exclusive:
        folder = WithoutExclusiveCreate(folder._filesystem, folder._root, folder.url)
    if is_stale:
        write_owner(folder, on_host("silent"))

    takers = [Lease(folder, on_host(name)) for name in "abcd"]
    barrier = threading.Barrier(len(takers))
    winners = []

    def take(lease: Lease) -> None:
        barrier.wait()
        try:
            lease.acquire()
        except LeaseError:
            return
        winners.append(lease)

    threads = [threading.Thread(target=take, args=[lease]) for lease in takers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    winners[0].confirm()
    winners[0].release()


def test_an_owner_that_was_replaced_finds_out(leases: dict[str, Lease]) -> None:
    leases["a"].acquire()
    write_owner(leases["a"]._folder, on_host("b"), number=2)
    for _ in range(100):
        if leases["a"]._successor is not None:
            break
        time.sleep(0.1)
    with pytest.raises(LeaseLostError, match=r"process \d+ on b, since .* has taken over this run"):
        leases["a"].raise_if_lost()
    with pytest.raises(LeaseLostError):
        leases["a"].confirm()
    leases["a"].release()
    owner = Owner.from_json(leases["a"]._folder.read("owner/00000002.json"))
    assert owner is not None
    assert not owner.is_released


def test_an_owner_that_slept_past_its_time_confirms_before_it_writes(folder: RemoteFolder) -> None:
    lease = Lease(folder, replace(on_host("a"), seconds=1000.0))  # no renewal by its thread
    lease.acquire()
    write_owner(folder, on_host("b"), number=2)
    lease.confirm()  # recently renewed
    lease._confirmed_at -= 600
    with pytest.raises(LeaseLostError):
        lease.confirm()
    lease.release()


class _HangingFileSystem(LocalFileSystem):
    """Answers no request before `answers` is set, like a server that is overloaded."""

    answers = threading.Event()

    def cat_file(self, path: str, **options: Any) -> Any:
        assert self.answers.wait(30)
        return super().cat_file(path, **options)


def test_a_storage_that_hangs_does_not_delay_the_end_of_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "_RELEASE_SECONDS", 0.1)
    filesystem = _HangingFileSystem()
    lease = Lease(RemoteFolder(filesystem, f"{tmp_path}/run", "sftp://host/run"))
    filesystem.answers.set()
    lease.acquire()
    filesystem.answers.clear()
    warnings: list[str] = []
    sink = logger.add(warnings.append, format="{message}")
    lease.release()
    filesystem.answers.set()
    logger.remove(sink)
    assert "sftp://host/run: the storage does not answer" in warnings[0]
    for thread in threading.enumerate():
        if thread.name == "release":
            thread.join(30)
    Lease(RemoteFolder(filesystem, f"{tmp_path}/run", "sftp://host/run")).check_free()
