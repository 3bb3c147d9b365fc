"""Annotation files that are no text, no regular files, or too large, and hostile names."""

import json
import os
import re
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from cls_data import DataError, read_split
from cls_data.annotations.lines import MAX_FILE_BYTES
from cls_data.annotations.reading import scan_split

_CONTROL_CHARACTER = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
_ROW = '{"image": "0.png", "suffix": "1"}\n'


def _make_sparse_file(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)


def _make_socket(path: Path) -> None:
    # The path of a socket is limited to about 100 characters.
    descriptor = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{descriptor}/{path.name}")
    os.close(descriptor)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (os.mkfifo, "is a folder, device, pipe, or socket"),
        (_make_socket, "cannot be read|is a folder, device, pipe, or socket"),
        (lambda path: path.symlink_to("/dev/zero"), "is a link to /dev/zero, outside"),
        (lambda path: path.symlink_to("/proc/self/environ"), "is a link to /proc/.*, outside"),
        (lambda path: path.symlink_to("/dev/stdin"), "is a link to .*, outside"),
        (lambda path: path.symlink_to("gone"), "cannot be read"),
        (lambda path: path.symlink_to(path.name), "cannot be read"),
        (_make_sparse_file, "has 4,000,000,001 bytes; expected at most 4,000,000,000"),
        (lambda path: path.write_text(_ROW, encoding="utf-16"), "is UTF-16; save the file as UTF"),
        (
            lambda path: path.write_bytes(b"\xfe\xff" + _ROW.encode("utf-16-be")),
            "is UTF-16; save the file as UTF-8",
        ),
    ],
)
def test_an_annotation_file_that_is_no_text_file_is_named(
    root: Path, make: Callable[[Path], None], expected: str
) -> None:
    file = root / "train" / "more.jsonl"
    make(file)
    with pytest.raises(DataError, match=f"^{re.escape(str(file))}: .*({expected})"):
        read_split(root, "train")


def test_the_text_of_an_unreadable_annotation_folder_is_not_skipped_silently(root: Path) -> None:
    folder = root / "train" / "more"
    folder.mkdir()
    (folder / "rows.jsonl").write_text(_ROW)
    folder.chmod(0)
    try:
        if os.access(folder, os.R_OK):
            pytest.skip("this user can read every folder")
        with pytest.raises(DataError, match="more: cannot be read"):
            read_split(root, "train")
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (_ROW.encode("utf-16-le"), "not text (it has NUL bytes); save the file as UTF-8"),
        ('{"image": "é.png", "suffix": "1"}'.encode("latin-1"), "not UTF-8 (byte 0xe9 at positio"),
        (b'{"image": "0.png", "suffix": "\xff"}', "not UTF-8 (byte 0xff at position 31)"),
        (_ROW.replace("\n", "\r").encode() * 3, "lines end in CR only"),
        (b"\x00" * 100, "not text (it has NUL bytes)"),
        (b"\x1f\x8b\x08\x00\x1b[2J", "not text (it has NUL bytes)"),
        (b"\x1b]0;title\x07", "not valid JSON"),
        (b'{"image": "\x1b[31m.png", "suffix": "1"}', "not valid JSON"),
        (b'{"image": "\\u001b[31m.png", "suffix": "1"}', "does not exist"),
        ('{"image": "\u202egnp.exe", "suffix": "1"}'.encode(), "does not exist"),
        (b'{"image": "0.png", "suffix": "1", "\\u001b[2J": 1}', "unknown key"),
        (b'{"image": "0.png", "suffix": "\\u001b[2J"}', "suffix contains a control character"),
        (b'{"image": "0.png", "suffix": "\\u009b2J"}', "suffix contains a control character"),
        (b'{"image": "0.png", "suffix": "a\\u2028b"}', "suffix contains a control character"),
        (b'{"image": "0.png", "suffix": "' + b"x" * 1001 + b'"}', "at most 1000 characters"),
        (b'{"image": "0.png", "suffix": "1", "a\\u0007": 1, "a\\u0007": 1}', "unknown key"),
        (b"[" * 100_000, "recursion limit"),
        (b'{"a":' * 100_000, "recursion limit"),
        (b"x" * 3_000_000, "the line is over 1,000,000 bytes long"),
        (b'{"image": "' + b"\\u001b" * 10_000 + b'", "suffix": "1"}', "cannot be looked up"),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_the_message_about_a_hostile_line_is_short_and_has_no_control_characters(
    root: Path, content: bytes, expected: str
) -> None:
    (root / "train" / "annotations.jsonl").write_bytes(content)
    rows = scan_split(root, "train")
    reason = rows.bad_rows[0].reason
    assert expected in reason
    assert len(reason) <= 501
    assert not _CONTROL_CHARACTER.search(reason)


def test_crlf_and_a_byte_order_mark_are_accepted(root: Path) -> None:
    text = _ROW.replace("\n", "\r\n") * 2
    (root / "train" / "annotations.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [record.source for record in read_split(root, "train")] == [
        "train/annotations.jsonl:1",
        "train/annotations.jsonl:2",
    ]


@pytest.mark.parametrize("name", ["._annotations.jsonl", ".ipynb_checkpoints/rows.jsonl"])
def test_hidden_annotation_files_are_skipped(root: Path, name: str) -> None:
    expected = len(read_split(root, "train"))
    file = root / "train" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"\x00\x05\x16\x07")
    assert len(read_split(root, "train")) == expected


def test_the_location_of_a_record_has_no_control_characters(root: Path) -> None:
    name = "\x1b[31m\u202e.png"
    (root / "train" / name).write_bytes((root / "train" / "0.png").read_bytes())
    row = json.dumps({"image": name, "suffix": "1"})
    (root / "train" / "annotations.jsonl").write_text(row)
    (record,) = read_split(root, "train")
    assert record.id == f"train/{name}"
    assert record.location == r"train/annotations.jsonl:1: train/\x1b[31m\u202e.png"


def test_a_line_of_a_gigabyte_takes_little_memory(root: Path) -> None:
    with (root / "train" / "annotations.jsonl").open("wb") as stream:
        stream.truncate(1_000_000_000)
    tracemalloc.start()
    (bad_row,) = scan_split(root, "train").bad_rows
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "the line is over 1,000,000 bytes long" in bad_row.reason
    assert peak < 8_000_000
