import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cls_export import BundleError
from cls_export.contract.files import (
    draft_path,
    open_atomically,
    read_bytes,
    remove_drafts,
    write_atomically,
)


def test_write_creates_folders_and_leaves_only_the_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_error_while_writing_keeps_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"whole")

    def fail_while_writing() -> None:
        with open_atomically(path) as stream:
            stream.write(b"par")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_while_writing()
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "reason"), [("gone", "No such file"), ("a\0b", "embedded null byte")]
)
def test_unreadable_file_raises_given_error_with_reason(
    tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(BundleError, match=f"cannot be read .*{reason}"):
        read_bytes(tmp_path / name, error=BundleError)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(BundleError, match=r"cannot be read \((not a regular file|Is a directory)"):
        read_bytes(path, error=BundleError)


def test_larger_file_than_allowed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bytes(path, error=BundleError, max_bytes=5) == b"12345"
    with pytest.raises(BundleError, match="larger than 4 bytes"):
        read_bytes(path, error=BundleError, max_bytes=4)


def test_drafts_of_dead_processes_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    own = draft_path(target)
    dead = own.with_name(own.name.replace(f".{os.getpid()}.", ".999999999."))
    other_host = own.with_name(f".a.json.other-host.{os.getpid()}.draft")
    for path in (target, own, dead, other_host):
        path.touch()

    remove_drafts(tmp_path)

    assert set(tmp_path.iterdir()) == {target, own, other_host}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_whose_end_its_parent_has_not_noticed_is_dead(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        draft = draft_path(tmp_path / "a.json")
        draft.with_name(draft.name.replace(f".{os.getpid()}.", f".{process.pid}.")).touch()
        remove_drafts(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("named", [True, False])
def test_error_of_an_atomic_write_names_the_target(tmp_path: Path, named: bool) -> None:
    target = tmp_path / "a.json"
    draft = str(draft_path(target)) if named else None
    with (
        pytest.raises(OSError, match="No space left") as caught,
        open_atomically(target),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", draft)
    assert caught.value.filename == str(target)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits of file sizes")
def test_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from cls_export.contract.files import write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    write_atomically(sys.argv[1], bytes(100_000))\n"
        "except OSError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.json")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"File too large: '{tmp_path / 'a.json'}'" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a" * 255, "名" * 85, "a.b.c", ".hidden"])
def test_any_file_name_has_a_draft(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, b"one")
    draft = draft_path(tmp_path / name)
    dead = draft.with_name(draft.name.replace(f".{os.getpid()}.", ".999999999."))
    dead.mkdir()
    (dead / "inside").touch()
    remove_drafts(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / name]
