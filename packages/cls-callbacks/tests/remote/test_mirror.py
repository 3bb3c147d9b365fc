"""What remote storage holds at any moment is a run that any machine can go on with."""

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger

from cls_callbacks import (
    AtomicCheckpointIO,
    RemoteConflictError,
    RemoteMirror,
    RemoteStorageError,
    open_remote_folder,
    verify_checkpoint,
)
from cls_callbacks.checkpointing.checkpoint_files import (
    duplicate_checkpoint,
    remove_checkpoint,
    rename_checkpoint,
)
from cls_callbacks.remote import mirror as mirror_module
from cls_callbacks.remote.lease import LeaseLostError, Owner
from cls_callbacks.remote.pull import read_step
from cls_callbacks.remote.records import LocalRecord
from cls_callbacks.remote.storage import RemoteFolder
from cls_export.contract.files import write_atomically
from cls_export.contract.run_layout import RunPaths

STEPS_PER_SAVE = 10


def save(run: RunPaths, step: int, *, is_best: bool) -> None:
    """Write the files of a save in the order in which training does."""
    io = AtomicCheckpointIO()
    checkpoint = {"global_step": step, "weights": torch.full((100,), step)}
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    write_atomically(run.config, b"seed: 1\n")
    write_atomically(run.metrics, f"step {step}\n".encode())
    if is_best:
        io.save_checkpoint({**checkpoint, "best_step": step}, run.best)
        duplicate_checkpoint(run.best, run.next)
    else:
        best_step = torch.load(run.best, weights_only=True)["best_step"]
        io.save_checkpoint({**checkpoint, "best_step": best_step}, run.next)
    if run.last.exists():
        rename_checkpoint(run.last, run.previous)
    rename_checkpoint(run.next, run.last)


def assert_sound(run: RunPaths) -> int:
    """Check that a run can go on from its files, and return the step."""
    resumable = [path for path in (run.last, run.previous) if path.exists()]
    verify_checkpoint(resumable[0])
    verify_checkpoint(run.best)
    state = torch.load(resumable[0], weights_only=True)
    best = torch.load(run.best, weights_only=True)
    # A newer best.ckpt is found again on the way; an older one would be lost.
    assert best["global_step"] >= state["best_step"]
    assert run.config.exists()
    assert int(run.metrics.read_text().split()[1]) >= state["global_step"]
    return int(state["global_step"])


class DyingFolder(RemoteFolder):
    """A folder whose machine dies before its n-th write, and cannot be reached afterwards."""

    def __init__(self, folder: RemoteFolder, writes: int) -> None:
        super().__init__(folder._filesystem, folder._root, folder.url)
        self.folder = folder
        self.writes = writes

    def __getattribute__(self, name: str) -> Any:
        if name in ("write", "upload", "copy", "delete"):
            self.writes -= 1
            if self.writes < 0:
                raise RemoteStorageError("the machine has died")
            return getattr(self.folder, name)
        return super().__getattribute__(name)


class AlwaysOwned:
    """A lease that is always held."""

    def confirm(self) -> None: ...
    def acquire(self) -> None: ...
    def release(self) -> None: ...
    def raise_if_lost(self) -> None: ...


def push_now(mirror: RemoteMirror, step: int, *, is_full: bool = False) -> None:
    """Push in this thread, so that a death happens at an exact request."""
    mirror._push(mirror_module.take_snapshot(mirror.run, step, is_full=is_full))


def new_mirror(path: Path, name: str, folder: RemoteFolder) -> RemoteMirror:
    lease: Any = AlwaysOwned()
    return RemoteMirror(RunPaths(path / name / "run"), folder, lease)


@pytest.fixture
def remote(tmp_path: Path) -> RemoteFolder:
    (tmp_path / "bucket").mkdir()
    return open_remote_folder(str(tmp_path / "bucket"), "run")


@pytest.fixture
def log_lines() -> Any:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}", level="INFO")
    yield lines
    logger.remove(sink)


SAVES = [(10, True), (20, False), (30, True), (40, False)]


def train_until_death(mirror: RemoteMirror) -> bool:
    """Save and push, complete the run, extend it, and save once more; return if all was done."""
    try:
        for step, is_best in SAVES:
            save(mirror.run, step, is_best=is_best)
            push_now(mirror, step)
        for name in ("fit.json", "evaluation.json", "plots/history.png", "summary.json"):
            write_atomically(mirror.run.path / name, b"{}")
            push_now(mirror, 40, is_full=True)
        for path in (mirror.run.summary, mirror.run.evaluation, mirror.run.fit):
            path.unlink()
        save(mirror.run, 50, is_best=False)
        push_now(mirror, 50)
    except RemoteStorageError:
        return False
    return True


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.slow), 11])
def test_a_machine_may_die_before_any_request(tmp_path: Path, stride: int) -> None:
    steps = []
    for writes in range(0, 1000, stride):
        bucket = tmp_path / f"bucket-{writes}"
        bucket.mkdir()
        remote = open_remote_folder(str(bucket), "run")
        first = new_mirror(tmp_path, f"first-{writes}", DyingFolder(remote, writes))
        is_done = train_until_death(first)

        fresh = new_mirror(tmp_path, f"fresh-{writes}", remote)
        if fresh.is_newer():
            fresh.pull()
            step = assert_sound(fresh.run)
            is_trained = fresh.run.fit.exists()
            assert not is_trained or step == 40
            steps.append(step)
            save(fresh.run, step + STEPS_PER_SAVE, is_best=True)
            push_now(fresh, step + STEPS_PER_SAVE)
            last = new_mirror(tmp_path, f"last-{writes}", remote)
            last.pull()
            assert assert_sound(last.run) == step + STEPS_PER_SAVE

        # The machine itself may come back, too.
        back = new_mirror(tmp_path, f"first-{writes}", remote)
        if back.is_newer():
            back.pull()
        assert assert_sound(back.run) >= max(steps[-1:], default=10)
        if is_done:
            break
    assert steps == sorted(steps)
    assert set(steps) == {10, 20, 30, 40, 50} or stride > 1
    assert steps[-1] == 50


def test_a_repeated_evaluation_is_not_mixed_with_the_earlier_one(tmp_path: Path) -> None:
    for writes in range(1000):
        bucket = tmp_path / f"bucket-{writes}"
        bucket.mkdir()
        remote = open_remote_folder(str(bucket), "run")
        mirror = new_mirror(tmp_path, f"first-{writes}", remote)
        save(mirror.run, 10, is_best=True)
        write_evaluation(mirror.run, "1")
        push_now(mirror, 10, is_full=True)
        write_evaluation(mirror.run, "2")
        dying = DyingFolder(remote, writes)
        mirror.folder = mirror._pusher._folder = dying
        with contextlib.suppress(RemoteStorageError):
            push_now(mirror, 10, is_full=True)

        fresh = new_mirror(tmp_path, f"fresh-{writes}", remote)
        fresh.pull()
        if fresh.run.evaluation.exists():
            predictions = (fresh.run.predictions / "test.npz").read_text()
            assert fresh.run.evaluation.read_text() == predictions
        if dying.writes >= 0:
            break
    assert writes > 3


def write_evaluation(run: RunPaths, content: str) -> None:
    for path in (run.predictions / "test.npz", run.fit, run.evaluation, run.summary):
        write_atomically(path, content.encode())


def test_a_pull_that_was_killed_anywhere_is_repeated(tmp_path: Path, remote: RemoteFolder) -> None:
    first = new_mirror(tmp_path, "first", remote)
    train_until_death(first)
    write_atomically(first.run.fit, b"{}")
    push_now(first, 50, is_full=True)
    record = LocalRecord.read(first.run)
    assert record is not None

    class Killed(BaseException):
        pass

    downloads = 0
    while True:
        second = new_mirror(tmp_path, f"second-{downloads}", remote)
        save(second.run, 5, is_best=True)
        write_atomically(second.run.fit, b"{}")
        LocalRecord(record.run).write(second.run)
        assert second.is_newer()
        remaining = downloads

        class KilledFolder(RemoteFolder):
            def download(self, name: str, path: Path) -> None:
                nonlocal remaining
                remaining -= 1
                if remaining < 0:
                    raise Killed
                super().download(name, path)

        second.folder = KilledFolder(remote._filesystem, remote._root, remote.url)
        try:
            second.pull()
        except Killed:
            assert not second.run.fit.exists()
            assert second.is_newer()
            second.folder = remote
            second.pull()
            assert assert_sound(second.run) == 50
            assert second.run.fit.exists()
            assert not second.is_newer()
            downloads += 1
            continue
        break
    assert downloads > 4


@pytest.mark.parametrize("name", ["last.ckpt", "last.ckpt.sha256"])
def test_a_damaged_last_checkpoint_is_replaced_by_the_previous_one(
    tmp_path: Path, remote: RemoteFolder, log_lines: list[str], name: str
) -> None:
    first = new_mirror(tmp_path, "first", remote)
    for step, is_best in SAVES:
        save(first.run, step, is_best=is_best)
        push_now(first, step)
    damaged = tmp_path / "bucket/run/checkpoints" / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 4] ^= 1
    damaged.write_bytes(content)

    fresh = new_mirror(tmp_path, "fresh", remote)
    fresh.pull()
    assert assert_sound(fresh.run) == 30
    assert any("last.ckpt does not match its .sha256 file" in line for line in log_lines)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("last", "previous"), "last.ckpt and previous.ckpt are damaged. Restore one of them"),
        (("best",), r"best.ckpt does not match its .sha256 file. Restore it, or choose another"),
    ],
)
def test_checkpoints_that_cannot_be_replaced_are_named(
    tmp_path: Path, remote: RemoteFolder, names: tuple[str, ...], expected: str
) -> None:
    first = new_mirror(tmp_path, "first", remote)
    for step, is_best in SAVES:
        save(first.run, step, is_best=is_best)
        push_now(first, step)
    for name in names:
        (tmp_path / f"bucket/run/checkpoints/{name}.ckpt").write_bytes(b"damaged")
    with pytest.raises(RemoteStorageError, match=expected):
        new_mirror(tmp_path, "fresh", remote).pull()


def push_saves(mirror: RemoteMirror, steps: list[int]) -> None:
    for step in steps:
        save(mirror.run, step, is_best=True)
        push_now(mirror, step)


def test_a_stale_folder_is_replaced_and_one_that_trained_further_is_kept(
    tmp_path: Path, remote: RemoteFolder, log_lines: list[str]
) -> None:
    one = new_mirror(tmp_path, "one", remote)
    push_saves(one, [10])
    assert not one.is_newer(), "its own push"

    other = new_mirror(tmp_path, "other", remote)
    other.pull()
    push_saves(other, [20])
    assert one.is_newer(), "a stale folder"

    save(one.run, 30, is_best=True)  # while the bucket could not be reached
    assert not one.is_newer(), "further than the remote run"
    assert any("has trained further than" in line for line in log_lines)

    push_now(one, 30)
    assert other.is_newer()
    other.pull()
    assert assert_sound(other.run) == 30


def test_equal_steps_are_told_apart_by_completed_stages(
    tmp_path: Path, remote: RemoteFolder
) -> None:
    one = new_mirror(tmp_path, "one", remote)
    push_saves(one, [10])
    other = new_mirror(tmp_path, "other", remote)
    other.pull()
    write_atomically(other.run.fit, b"{}")
    push_now(other, 10)
    assert one.is_newer()

    write_atomically(one.run.fit, b"{}")
    write_atomically(one.run.evaluation, b"{}")
    assert not one.is_newer()


@pytest.mark.parametrize("names", [("fit.json", "evaluation.json"), ("fit.json",), ()])
def test_a_run_is_complete_when_its_summary_was_pushed(
    tmp_path: Path, remote: RemoteFolder, names: tuple[str, ...]
) -> None:
    mirror = new_mirror(tmp_path, "one", remote)
    push_saves(mirror, [10])
    for name in names:
        write_atomically(mirror.run.path / name, b"{}")
    push_now(mirror, 10)
    assert not mirror.is_complete()
    write_atomically(mirror.run.summary, b"{}")
    assert not mirror.is_complete()
    push_now(mirror, 10)
    assert mirror.is_complete()


def test_a_folder_without_a_checkpoint_is_replaced(tmp_path: Path, remote: RemoteFolder) -> None:
    push_saves(new_mirror(tmp_path, "one", remote), [10])
    begun = new_mirror(tmp_path, "begun", remote)
    begun.run.path.mkdir(parents=True)
    begun.run.config.write_text("seed: 2")
    assert begun.is_newer()


def test_different_runs_of_one_name_are_refused(tmp_path: Path, remote: RemoteFolder) -> None:
    push_saves(new_mirror(tmp_path, "one", remote), [10])
    never_pushed = new_mirror(tmp_path, "never pushed", remote)
    save(never_pushed.run, 10, is_best=True)
    with pytest.raises(RemoteConflictError, match="was never pushed there"):
        never_pushed.is_newer()

    (tmp_path / "bucket/elsewhere").mkdir()
    elsewhere = open_remote_folder(str(tmp_path / "bucket/elsewhere"), "run")
    push_saves(new_mirror(tmp_path, "other", elsewhere), [10])
    with pytest.raises(RemoteConflictError, match="is another run of that name"):
        new_mirror(tmp_path, "other", remote).is_newer()


def test_a_remote_folder_that_is_not_a_run_is_refused(tmp_path: Path, remote: RemoteFolder) -> None:
    remote.write("thesis.tex", b"")
    with pytest.raises(RemoteConflictError, match=r"'thesis.tex' and no config.yaml; choose"):
        new_mirror(tmp_path, "one", remote).is_newer()


def test_names_that_leave_the_run_folder_and_files_of_machines_are_not_fetched(
    tmp_path: Path,
) -> None:
    remote = open_remote_folder(f"memory://{tmp_path.name}", "run")
    push_saves(new_mirror(tmp_path, "one", remote), [10])
    for name in ("../outside.txt", "a/../../outside.txt", "/etc/outside.txt", "run.lock"):
        remote._filesystem.store[f"{remote._root}/{name}"] = remote._filesystem.store[
            f"{remote._root}/config.yaml"
        ]
    fresh = new_mirror(tmp_path, "fresh", remote)
    fresh.pull()
    assert_sound(fresh.run)
    assert not list(tmp_path.rglob("outside.txt"))
    assert not fresh.run.lock.exists()


def test_epoch_checkpoints_that_are_gone_are_deleted(tmp_path: Path, remote: RemoteFolder) -> None:
    mirror = new_mirror(tmp_path, "one", remote)
    for epoch in (1, 2, 3):
        save(mirror.run, 10 * epoch, is_best=True)
        kept = mirror.run.checkpoints / f"epoch_{epoch:05d}.ckpt"
        duplicate_checkpoint(mirror.run.last, kept)
        remove_checkpoint(mirror.run.checkpoints / f"epoch_{epoch - 1:05d}.ckpt")
        push_now(mirror, 10 * epoch)
    names = remote.list_sizes("checkpoints")
    assert [name for name in names if "epoch" in name] == [
        "checkpoints/epoch_00003.ckpt",
        "checkpoints/epoch_00003.ckpt.sha256",
    ]
    fresh = new_mirror(tmp_path, "fresh", remote)
    fresh.pull()
    verify_checkpoint(fresh.run.checkpoints / "epoch_00003.ckpt")


def test_a_best_checkpoint_of_an_attempt_without_a_last_one_is_deleted(
    tmp_path: Path, remote: RemoteFolder
) -> None:
    mirror = new_mirror(tmp_path, "one", remote)
    push_saves(mirror, [10])
    for name in ("last.ckpt", "previous.ckpt"):
        remote.delete(f"checkpoints/{name}")
    for path in (mirror.run.best, mirror.run.last):
        remove_checkpoint(path)
    push_now(mirror, 0)
    assert "checkpoints/best.ckpt" not in remote.list_sizes()


@pytest.mark.parametrize("deleted", [".", "checkpoints"])
def test_a_local_folder_that_was_deleted_deletes_nothing_in_the_storage(
    tmp_path: Path, remote: RemoteFolder, deleted: str, log_lines: list[str]
) -> None:
    with new_mirror(tmp_path, "one", remote) as mirror:
        push_saves(mirror, [10, 20])
        before = remote.list_sizes("checkpoints")
        shutil.rmtree(mirror.run.path / deleted)
        mirror.push()
        if deleted == "checkpoints":
            mirror.flush()
        else:
            assert "was deleted, or has no config.yaml: not pushed" in log_lines[-1]
    assert remote.list_sizes("checkpoints") == before


def test_files_that_somebody_deleted_in_the_storage_are_pushed_again(
    tmp_path: Path, remote: RemoteFolder
) -> None:
    mirror = new_mirror(tmp_path, "one", remote)
    push_saves(mirror, [10])
    for name in remote.list_sizes():
        remote.delete(name)
        push_now(mirror, 10)
        fresh = new_mirror(tmp_path, f"fresh-{name.replace('/', '-')}", remote)
        fresh.pull()
        assert assert_sound(fresh.run) == 10


@pytest.mark.parametrize("remote_folder", ["runs", "runs/run/copy"])
def test_a_run_is_not_mirrored_onto_itself(tmp_path: Path, remote_folder: str) -> None:
    with pytest.raises(RemoteConflictError, match="is where the run itself is"):
        RemoteMirror.open(str(tmp_path / remote_folder), RunPaths(tmp_path / "runs/run"))


def test_equal_checkpoints_are_uploaded_once(tmp_path: Path, remote: RemoteFolder) -> None:
    mirror = new_mirror(tmp_path, "one", remote)
    push_saves(mirror, [10])
    push_now(mirror, 10, is_full=True)
    size = mirror.run.best.stat().st_size
    assert size <= mirror.uploaded_bytes < 2 * size


class Gate:
    """Let a mirror's uploads fail, or wait, as a server that is down."""

    def __init__(self, mirror: RemoteMirror) -> None:
        self.is_down = False
        self.uploads: list[str] = []
        upload = mirror.folder.upload

        def guarded(path: Path, name: str) -> None:
            if self.is_down:
                raise RemoteStorageError("s3://b: connection refused. Check the network")
            self.uploads.append(name)
            upload(path, name)

        mirror.folder.upload = guarded  # type: ignore[method-assign]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_training_goes_on_while_the_storage_is_down_and_pushes_catch_up(
    tmp_path: Path, remote: RemoteFolder, log_lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_module, "_FIRST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(mirror_module, "_LAST_RETRY_SECONDS", 0.1)
    with new_mirror(tmp_path, "one", remote) as mirror:
        gate = Gate(mirror)
        gate.is_down = True
        for step, is_best in SAVES:
            save(mirror.run, step, is_best=is_best)
            mirror.push(step)
        wait_for(lambda: mirror._error is not None)
        gate.is_down = False
        mirror.flush()
        assert gate.uploads.count("checkpoints/best.ckpt") == 1, "only the newest is pushed"

    warnings = [line for line in log_lines if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert "connection refused. Check the network. The run goes on" in warnings[0]
    assert any("caught up" in line for line in log_lines)
    assert list(mirror.run.path.glob(".*")) == []
    fresh = new_mirror(tmp_path, "fresh", remote)
    fresh.pull()
    assert assert_sound(fresh.run) == 40


def test_a_flush_gives_up_at_its_deadline_and_leaves_no_links(
    tmp_path: Path, remote: RemoteFolder
) -> None:
    with new_mirror(tmp_path, "one", remote) as mirror:
        Gate(mirror).is_down = True
        save(mirror.run, 10, is_best=True)
        with pytest.raises(RemoteStorageError, match="connection refused"):
            mirror.flush(0.5)
    assert list(mirror.run.path.glob(".*")) == []


@pytest.mark.parametrize("seconds", [None, 1000.0])
def test_the_last_push_gives_up_on_permanent_errors(
    tmp_path: Path, remote: RemoteFolder, monkeypatch: pytest.MonkeyPatch, seconds: float | None
) -> None:
    monkeypatch.setattr(mirror_module, "_FIRST_RETRY_SECONDS", 0.01)
    with new_mirror(tmp_path, "one", remote) as mirror:
        save(mirror.run, 10, is_best=True)
        (tmp_path / "bucket/run").write_text("a file, where a folder should be")
        with pytest.raises(RemoteStorageError, match="bucket/run") as caught:
            mirror.flush(seconds)
        assert str(caught.value).count("bucket/run") == 1


def test_a_machine_that_was_replaced_pushes_nothing_more(
    tmp_path: Path, remote: RemoteFolder
) -> None:
    with RemoteMirror(RunPaths(tmp_path / "one/run"), remote) as mirror:
        save(mirror.run, 10, is_best=True)
        mirror.flush()
        remote.write("owner/00000002.json", Owner.of_this_process(60).to_json())
        with pytest.raises(LeaseLostError):
            mirror.lease._renew()
        before = remote.list_sizes()
        save(mirror.run, 20, is_best=True)
        with pytest.raises(LeaseLostError, match="has taken over this run"):
            mirror.push(20)
    assert remote.list_sizes() == before


def test_a_snapshot_keeps_the_files_of_its_moment(tmp_path: Path) -> None:
    run = RunPaths(tmp_path / "run")
    save(run, 10, is_best=True)
    (run.path / "tensorboard").mkdir()
    (run.path / "tensorboard/events").write_bytes(b"1")
    snapshot = mirror_module.take_snapshot(run, 10, is_full=True)
    save(run, 20, is_best=True)
    with (run.path / "tensorboard/events").open("ab") as stream:
        stream.write(b"2")
    last = torch.load(snapshot.files["checkpoints/last.ckpt"].path, weights_only=True)
    assert last["global_step"] == 10
    assert snapshot.files["metrics.csv"].path.read_text() == "step 10\n"
    assert snapshot.files["tensorboard/events"].path.read_bytes() == b"1"
    snapshot.remove()
    assert read_step(run) == 20
