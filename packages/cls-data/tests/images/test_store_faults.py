"""Store files that are damaged, foreign, or no files, and disks without space."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from cls_data import DataError, ImageStore, read_split
from cls_data.images.store_file import StoreFile
from cls_export.contract.preprocessing import Preprocessing

PLAIN = Preprocessing(size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))
ROW_BYTES = 3 * 8 * 8


def build(root: Path, folder: Path) -> ImageStore:
    return ImageStore.build(read_split(root, "train"), PLAIN, folder=folder)


@pytest.fixture
def stored(root: Path, tmp_path: Path) -> Path:
    """Return the path of a store file of the training split."""
    folder = tmp_path / "stores"
    build(root, folder)
    (file,) = folder.iterdir()
    return file


def write_description(file: Path, pixels: bytes, description: bytes) -> None:
    """Write a store file with a valid checksum of any description."""
    digest = hashlib.sha256(description).digest()
    length = len(description).to_bytes(8, "little")
    file.write_bytes(pixels + description + digest + length + b"clsstor1")


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1, 3, 8, 8]},
        {"shape": None},
        {"shape": 7},
        {"checksums": []},
        {"checksums": [0] * 50},
        {"checksums": {"0": 1}},
        {"sizes": []},
        {"sizes": [[1, 2]]},
        {"sizes": [[10**30, 1]] * 30},
        {"sizes": "x"},
        {"sizes": [[1]] * 30},
        {"sizes": None},
        {"more": "x" * 100_000},
    ],
)
def test_description_that_contradicts_the_images_is_noticed(
    root: Path, stored: Path, change: dict[str, Any]
) -> None:
    whole = stored.read_bytes()
    pixels = whole[: 30 * ROW_BYTES]
    description = json.loads(whole[len(pixels) : -48])
    write_description(stored, pixels, json.dumps(description | change).encode())
    rebuilt = build(root, stored.parent)
    assert torch.equal(rebuilt.pixels, ImageStore.build(read_split(root, "train"), PLAIN).pixels)
    assert stored.read_bytes() == whole


@pytest.mark.parametrize("text", [b"[" * 9000, b"[]", b"null", b"\xff", b"", b'{"shape": 1e999}'])
def test_description_that_is_no_mapping_is_noticed(root: Path, stored: Path, text: bytes) -> None:
    whole = stored.read_bytes()
    write_description(stored, whole[: 30 * ROW_BYTES], text)
    build(root, stored.parent)
    assert stored.read_bytes() == whole


def test_sparse_store_file_takes_no_memory_and_is_rebuilt(root: Path, stored: Path) -> None:
    whole = stored.read_bytes()
    length = 10**12
    with stored.open("r+b") as stream:
        stream.truncate(30 * ROW_BYTES + length)
        stream.seek(0, os.SEEK_END)
        stream.write(bytes(32) + length.to_bytes(8, "little") + b"clsstor1")
    build(root, stored.parent)
    assert stored.read_bytes() == whole


@pytest.mark.parametrize("kind", ["pipe", "link to itself", "link to nowhere", "socket"])
def test_thing_in_place_of_a_store_file_is_replaced(
    root: Path, stored: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stored.read_bytes()
    stored.unlink()
    monkeypatch.chdir(stored.parent)  # a socket's path is short
    if kind == "pipe":
        os.mkfifo(stored)
    elif kind == "link to itself":
        stored.symlink_to(stored)
    elif kind == "link to nowhere":
        stored.symlink_to("nowhere")
    else:
        with socket.socket(socket.AF_UNIX) as unix_socket:
            unix_socket.bind(stored.name)
    build(root, stored.parent)
    assert not stored.is_symlink()
    assert stored.read_bytes() == whole


def test_folder_in_place_of_a_store_file_is_named(root: Path, stored: Path) -> None:
    stored.unlink()
    stored.mkdir()
    with pytest.raises(DataError, match=r"cannot be written \(Is a directory\)"):
        build(root, stored.parent)
    assert list(stored.parent.iterdir()) == [stored]


def test_lack_of_space_is_noticed_before_decoding(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    with monkeypatch.context() as context:
        context.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 30 * ROW_BYTES - 1))
        context.setattr(Preprocessing, "decode", None)
        with pytest.raises(DataError, match=r"cannot be written \(No space left"):
            build(root, tmp_path / "stores")
    assert list((tmp_path / "stores").iterdir()) == []
    build(root, tmp_path / "stores")


def test_store_file_that_disappears_before_it_is_mapped_is_named(stored: Path) -> None:
    file = StoreFile(stored, (30, 3, 8, 8))
    stored.unlink()
    with pytest.raises(DataError, match=f"^{stored}: stored pixels cannot be mapped"):
        file.map()


def test_more_pixels_than_memory_are_named(root: Path) -> None:
    huge = Preprocessing(size=(8192, 8192), mean=(0, 0, 0), std=(1, 1, 1))
    records = read_split(root, "train") * 100_000  # 600 TB; the rows themselves are shared
    with pytest.raises(DataError, match=r"GB of decoded images do not fit into memory"):
        ImageStore.build(records, huge)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root can write anywhere")
def test_store_in_a_read_only_folder_is_used(root: Path, stored: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname().replace(".", "-")
    (stored.parent / f".{stored.name}.{host}.{gone.pid}.draft").touch()
    stored.parent.chmod(0o500)
    try:
        build(root, stored.parent)
    finally:
        stored.parent.chmod(0o700)
