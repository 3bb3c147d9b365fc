"""Remote folders: a local folder, an object store, and any other file system of fsspec."""

import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from cls_callbacks import RemoteStorageError, open_remote_folder
from cls_callbacks.remote.storage import RemoteFolder
from cls_callbacks.remote.storage_errors import describe_storage_error

Open = Callable[[], RemoteFolder]


@pytest.fixture(params=["folder", "object store", "other file system"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteFolder:
    if request.param == "folder":
        return open_remote_folder(str(tmp_path), "run")
    if request.param == "object store":
        return open_remote_folder(f"memory://{uuid.uuid4().hex}", "run")
    return RemoteFolder(fsspec.filesystem("file"), f"{tmp_path}/run", "sftp://host/run")


def test_files_are_written_read_copied_listed_and_deleted(
    folder: RemoteFolder, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(b"12345")
    folder.upload(tmp_path / "source", "checkpoints/last.ckpt")
    folder.copy("checkpoints/last.ckpt", "checkpoints/previous.ckpt")
    folder.write("config.yaml", b"old")
    folder.write("config.yaml", b"new")
    assert folder.read("config.yaml") == b"new"
    assert folder.read("missing.json") is None
    sizes = {"checkpoints/last.ckpt": 5, "checkpoints/previous.ckpt": 5, "config.yaml": 3}
    assert folder.list_sizes() == sizes

    folder.download("checkpoints/previous.ckpt", tmp_path / "here/copy.ckpt")
    assert (tmp_path / "here/copy.ckpt").read_bytes() == b"12345"
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["copy.ckpt"]

    folder.delete("config.yaml")
    folder.delete("config.yaml")
    assert folder.list_sizes("checkpoints").keys() == sizes.keys() - {"config.yaml"}


def test_an_existing_file_is_not_created_again(folder: RemoteFolder) -> None:
    assert folder.create("owner/1.json", b"one")
    assert not folder.create("owner/1.json", b"other")
    assert folder.read("owner/1.json") == b"one"


def test_a_missing_run_is_an_empty_folder(folder: RemoteFolder) -> None:
    folder.check_exists()
    assert folder.list_sizes() == {}


class _ListsFolders(LocalFileSystem):
    """Lists empty folders as entries, as some S3 servers do after their last file was deleted."""

    def find(self, path: str, **options: Any) -> Any:
        return super().find(path, withdirs=True, **options)


def test_folders_in_a_listing_are_not_files(tmp_path: Path) -> None:
    folder = RemoteFolder(_ListsFolders(), f"{tmp_path}/run", "s3://bucket/run")
    (tmp_path / "run/owner").mkdir(parents=True)
    assert folder.list_sizes() == {}
    (tmp_path / "run/owner/1.json").write_bytes(b"1")
    assert folder.list_sizes() == {"owner/1.json": 1}


@pytest.mark.parametrize("copies", [8])
def test_one_of_several_threads_creates_a_file(tmp_path: Path, copies: int) -> None:
    folder = open_remote_folder(str(tmp_path), "run")
    barrier = threading.Barrier(copies)
    results = []

    def create(number: int) -> None:
        barrier.wait()
        results.append(folder.create("owner/1.json", str(number).encode()))

    threads = [threading.Thread(target=create, args=[number]) for number in range(copies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * (copies - 1) + [True]


def test_a_failed_upload_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    folder = open_remote_folder(str(tmp_path), "run")
    folder.write("metrics.csv", b"old")
    with pytest.raises(RemoteStorageError, match=r"missing was deleted before it was pushed$"):
        folder.upload(tmp_path / "missing", "metrics.csv")
    assert folder.read("metrics.csv") == b"old"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.csv"]


def test_drafts_of_dead_machines_are_not_listed_and_can_be_deleted(tmp_path: Path) -> None:
    folder = open_remote_folder(str(tmp_path), "run")
    folder.write("metrics.csv", b"1")
    draft = tmp_path / "run/.last.ckpt.other-host.123.draft"
    draft.write_bytes(b"half")
    assert folder.list_sizes() == {"metrics.csv": 1}
    folder.delete_drafts()
    assert not draft.exists()
    assert folder.read("metrics.csv") == b"1"


def test_a_failed_download_leaves_the_old_file(tmp_path: Path) -> None:
    folder = open_remote_folder(str(tmp_path), "run")
    (tmp_path / "here").write_text("old")
    with pytest.raises(RemoteStorageError, match=r"run/missing\.json"):
        folder.download("missing.json", tmp_path / "here")
    assert (tmp_path / "here").read_text() == "old"
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nowhere://bucket", r"run.remote=nowhere://bucket: Protocol not known: nowhere"),
        ("/no/such/folder", r"/no/such/folder: the folder does not exist .*Create it, or correct"),
        ("/dev/null", r"/dev/null is not a folder\. Choose another"),
        ("sftp://host/folder", r"paramiko"),
    ],
)
def test_an_unusable_url_is_one_message(url: str, expected: str) -> None:
    with pytest.raises(RemoteStorageError, match=expected) as caught:
        open_remote_folder(url, "run").check_exists()
    assert caught.value.is_permanent
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(RemoteStorageError, match=r"^/proc/sys/run: .*[A-Z]"):
        open_remote_folder("/proc/sys", "run").write("config.yaml", b"")


class _CodeError(Exception):
    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@pytest.mark.parametrize(
    ("error", "url", "expected"),
    [
        (ImportError("no s3fs"), "s3://b/x", "uv run --extra s3 apps/train"),
        (ImportError("no gcsfs"), "gs://b/x", "pip install 'cls-callbacks[gcs]'"),
        (FileNotFoundError("no such bucket"), "s3://b/x", "the bucket does not exist"),
        (PermissionError("bad key"), "s3://b/x", "access denied (bad key). Set AWS_ACCESS_KEY_ID"),
        (_CodeError("no token", 401), "gs://b/x", "Run: gcloud auth application-default login"),
        (OSError("Forbidden: b/x\nno rights"), "gcs://b/x", "access denied (Forbidden: b/x)"),
        (TimeoutError("timed out"), "s3://b/x", "timed out. Check the address, the network"),
        (RuntimeError(), "s3://b/x", "RuntimeError. Check"),
        (ValueError("Invalid endpoint: x"), "s3://b/x", "Invalid endpoint: x. Check the address"),
    ],
)
def test_errors_of_backends_say_what_to_do(error: Exception, url: str, expected: str) -> None:
    message = str(describe_storage_error(error, url))
    assert message.startswith(url)
    assert expected in message
    assert "\n" not in message


@given(st.text(), st.sampled_from([OSError, ValueError, FileNotFoundError, PermissionError]))
def test_any_backend_error_is_one_line(text: str, kind: Any) -> None:
    assert "\n" not in str(describe_storage_error(kind(text), "s3://b"))
