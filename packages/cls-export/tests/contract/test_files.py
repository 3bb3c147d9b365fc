from pathlib import Path

import pytest

from cls_export import BundleError
from cls_export.contract.files import open_atomically, read_bytes, write_atomically


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
