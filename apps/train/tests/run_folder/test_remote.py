"""The remote copy of a run around the stages of a command."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cls_callbacks import LeaseError, RemoteStorageError
from cls_callbacks.remote import mirror as mirror_module
from cls_callbacks.remote.lease import LeaseLostError, Owner
from cls_export.contract.run_layout import RunPaths
from cls_train.composition.config import RunConfig
from cls_train.errors import RunError, RunFailedError
from cls_train.run_folder.remote import check_remote, mirrored
from cls_train.run_folder.run_paths import choose_run_paths
from cls_train.run_folder.state import check_startable


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    folder = tmp_path / "bucket"
    folder.mkdir()
    return folder


@pytest.fixture
def remote_config(composed: Any, tmp_path: Path, bucket: Path) -> RunConfig:
    config: RunConfig = composed(
        f"run.root={tmp_path / 'runs'}", "run.name=one", f"run.remote={bucket}"
    )
    return config


@pytest.fixture
def run(remote_config: RunConfig) -> RunPaths:
    paths = choose_run_paths(remote_config)
    paths.path.mkdir(parents=True)
    paths.config.write_text("seed: 1")
    return paths


def test_without_a_remote_setting_nothing_is_mirrored(composed: Any, tmp_path: Path) -> None:
    config = composed(f"run.root={tmp_path}", "run.name=one")
    run = choose_run_paths(config)
    with mirrored(config, run) as mirror:
        assert mirror is None
    check_remote(config, run)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [SystemExit(143), KeyboardInterrupt(), ValueError("a bug")])
def test_an_interrupted_block_pushes_what_it_has_written(
    remote_config: RunConfig, run: RunPaths, bucket: Path, error: BaseException
) -> None:
    def work() -> None:
        with mirrored(remote_config, run) as mirror:
            assert mirror is not None
            mirror.push(1)
            run.metrics.write_text("epoch,step\n")
            raise error

    with pytest.raises(type(error)):
        work()
    assert (bucket / "one/metrics.csv").read_text() == "epoch,step\n"
    with mirrored(remote_config, run):  # the lease was released
        pass


def test_a_block_that_fails_before_it_pushes_writes_no_files_of_the_run(
    remote_config: RunConfig, run: RunPaths, bucket: Path
) -> None:
    with pytest.raises(RunError, match="other settings"), mirrored(remote_config, run):
        raise RunError("other settings")
    assert [path.name for path in (bucket / "one").iterdir()] == ["owner"]


def test_sigterm_does_not_end_the_last_push(
    remote_config: RunConfig, run: RunPaths, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = mirror_module.Pusher.push

    def push_slowly(self: Any, snapshot: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        push(self, snapshot)

    def work() -> None:
        with mirrored(remote_config, run) as mirror:
            assert mirror is not None
            mirror._start()
            monkeypatch.setattr(mirror_module.Pusher, "push", push_slowly)
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        work()
    assert (bucket / "one/config.yaml").exists()


def test_a_run_that_was_taken_over_is_an_error_and_is_not_pushed(
    remote_config: RunConfig, run: RunPaths, bucket: Path
) -> None:
    def work() -> None:
        with mirrored(remote_config, run) as mirror:
            assert mirror is not None
            other = Owner.of_this_process(60.0)
            mirror.folder.write("owner/00000002.json", other.to_json())
            mirror.lease._confirmed_at -= 100
            mirror.lease.confirm()

    with pytest.raises(RunError, match="has taken over this run") as caught:
        work()
    assert isinstance(caught.value.__cause__, LeaseLostError)
    assert not (bucket / "one/config.yaml").exists()


def test_a_second_process_of_this_machine_is_refused_also_by_check(
    remote_config: RunConfig, run: RunPaths
) -> None:
    with mirrored(remote_config, run):
        with pytest.raises(RunError, match="is being trained by process"):
            check_remote(remote_config, run)
        with pytest.raises(RunError) as caught, mirrored(remote_config, run):
            pass
        assert isinstance(caught.value.__cause__, LeaseError)


def test_a_finished_run_that_cannot_be_pushed_names_the_command_that_does(
    remote_config: RunConfig, run: RunPaths, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_module, "_FIRST_RETRY_SECONDS", 0.01)

    def fail(self: Any, snapshot: Any) -> None:
        raise RemoteStorageError("gs://b/one: access denied", is_permanent=True)

    monkeypatch.setattr(mirror_module.Pusher, "push", fail)
    expected = r"is complete, but was not pushed: gs://b/one: access denied.* run.name=one to push"
    with pytest.raises(RunFailedError, match=expected), mirrored(remote_config, run):
        pass


def test_an_automatic_name_is_new_in_the_remote_folder_too(
    composed: Any, tmp_path: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "20261127-120000")
    config = composed(f"run.root={tmp_path / 'runs'}", f"run.remote={bucket}")
    first = choose_run_paths(config)
    (bucket / first.path.name).mkdir()
    (bucket / first.path.name / "config.yaml").write_text("")
    assert choose_run_paths(config).path.name == f"{first.path.name}-2"


def test_check_leaves_nothing_in_the_remote_folder(
    remote_config: RunConfig, run: RunPaths, bucket: Path
) -> None:
    check_remote(remote_config, run)
    assert [path for path in bucket.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("is_here", [True, False])
def test_a_finished_remote_run_is_refused_also_by_check_and_says_what_to_delete(
    remote_config: RunConfig, run: RunPaths, bucket: Path, is_here: bool
) -> None:
    run.checkpoints.mkdir()
    run.last.write_bytes(b"weights")
    run.summary.write_text("{}")
    with mirrored(remote_config, run):
        pass
    if is_here:
        with pytest.raises(RunError, match=r"or delete its folders, here and in run\.remote"):
            check_startable(run)
        return

    shutil.rmtree(run.path)
    expected = f"'one' is finished in {bucket}/one; .* without --check to fetch"
    with pytest.raises(RunError, match=expected):
        check_remote(remote_config, run)
    assert not run.path.exists()
