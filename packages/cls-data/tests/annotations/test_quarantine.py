import json
import os
from pathlib import Path
from typing import Any

import pytest

from cls_data import DataError, Quarantine, read_split
from cls_data.annotations.quarantine import hash_line, write_quarantine
from cls_data.annotations.reading import scan_split


def write_and_load(root: Path, *sources: str) -> Quarantine:
    write_quarantine(root / "left-out", root, {source: ["some_rule"] for source in sources})
    return Quarantine.load(root / "left-out")


def test_quarantined_rows_are_left_out_of_every_split(root: Path) -> None:
    every = read_split(root, "train")
    quarantine = write_and_load(
        root, every[3].source, every[29].source, "valid/annotations.jsonl:1"
    )
    assert read_split(root, "train", quarantine=quarantine) == [*every[:3], *every[4:29]]
    assert len(read_split(root, "valid", quarantine=quarantine)) == 8
    assert len(read_split(root, "test", quarantine=quarantine)) == 6


def test_malformed_rows_can_be_quarantined(root: Path) -> None:
    lines = [b"nonsense \xff\x00", b'{"image": "gone.png", "suffix": "1"}', b"x" * 2_000_000, b"{}"]
    file = root / "train" / "annotations.jsonl"
    file.write_bytes(file.read_bytes() + b"\n".join(lines))
    quarantine = write_and_load(
        root, *(f"train/annotations.jsonl:{number}" for number in range(31, 35))
    )
    rows = scan_split(root, "train", quarantine=quarantine)
    assert (len(rows.records), rows.bad_rows) == (30, [])


def test_a_whole_split_can_be_quarantined(root: Path) -> None:
    quarantine = write_and_load(root, *(record.source for record in read_split(root, "test")))
    assert read_split(root, "test", quarantine=quarantine) == []


def test_write_quarantine_records_row_hash_and_reasons(root: Path) -> None:
    write_quarantine(
        root / "new" / "left-out", root, {"train/annotations.jsonl:2": ["one_rule", "another"]}
    )
    (line,) = (root / "new" / "left-out").read_text().splitlines()
    text = (root / "train" / "annotations.jsonl").read_bytes().splitlines()[1]
    assert json.loads(line) == {
        "row": "train/annotations.jsonl:2",
        "sha256": hash_line(text),
        "because": ["one_rule", "another"],
    }


def test_an_empty_quarantine_leaves_out_nothing(root: Path) -> None:
    assert write_and_load(root) == Quarantine({})
    assert len(read_split(root, "train", quarantine=write_and_load(root))) == 30


def edit(root: Path, change: Any) -> None:
    file = root / "train" / "annotations.jsonl"
    lines = file.read_text().splitlines()
    change(lines)
    file.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda lines: lines.insert(0, lines[5]),
            "annotations.jsonl:4: the text of this quarantined row changed",
        ),
        (
            lambda lines: lines.__setitem__(3, lines[3].replace('"10"', '"2"')),
            ":4: the text of this quarantined row changed",
        ),
        (
            lambda lines: lines.__delitem__(slice(3, None)),
            r"1 quarantined row\(s\) do not exist:\n.*:4\n",
        ),
        (lambda lines: lines.__setitem__(3, ""), r"1 quarantined row\(s\) do not exist"),
    ],
)
def test_a_quarantine_is_rejected_after_its_rows_were_edited(
    root: Path, change: Any, expected: str
) -> None:
    quarantine = write_and_load(root, "train/annotations.jsonl:4")
    edit(root, change)
    with pytest.raises(DataError, match=expected) as caught:
        read_split(root, "train", quarantine=quarantine)
    assert "Run `cls-data check ROOT --quarantine FILE` again" in str(caught.value)


def test_rows_can_be_appended_after_quarantined_ones(root: Path) -> None:
    quarantine = write_and_load(root, "train/annotations.jsonl:4")
    edit(root, lambda lines: lines.append(lines[0]))
    assert len(read_split(root, "train", quarantine=quarantine)) == 30


def test_for_folder_does_not_match_longer_folder_names(root: Path) -> None:
    assert Quarantine({"train2/a.jsonl:1": "", "train/a.jsonl:1": ""}).for_folder("train").rows == {
        "train/a.jsonl:1": ""
    }


def test_quarantine_applies_to_an_annotations_subfolder(root: Path) -> None:
    fold = root / "folds" / "0" / "train"
    fold.mkdir(parents=True)
    fold.joinpath("rows.jsonl").write_text(
        "".join(
            f'{{"image": "../../../train/{number}.png", "suffix": "1"}}\n' for number in range(3)
        )
    )
    quarantine = write_and_load(root, "folds/0/train/rows.jsonl:2", "train/annotations.jsonl:1")
    records = read_split(root, "train", annotations="folds/0", quarantine=quarantine)
    assert [record.id for record in records] == ["train/0.png", "train/2.png"]


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"",
        b"\xff",
        b'{"row": "train/a.jsonl:1", "sha256": "", "because": []}',
        b'{"row": "train/a.jsonl", "sha256": "' + b"0" * 64 + b'", "because": []}',
        b'{"row": 1, "sha256": "' + b"0" * 64 + b'", "because": []}',
    ],
)
def test_load_rejects_invalid_lines(tmp_path: Path, line: bytes) -> None:
    good = json.dumps({"row": "train/a.jsonl:1", "sha256": "0" * 64, "because": []}).encode()
    (tmp_path / "left-out").write_bytes(good + b"\n" + line + b"\n")
    with pytest.raises(DataError, match="left-out:2: not a quarantine entry"):
        Quarantine.load(tmp_path / "left-out")


def test_load_names_files_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 10**12)
    for path in (tmp_path / "gone", tmp_path / "pipe", tmp_path / "huge", tmp_path, "/dev/zero"):
        with pytest.raises(DataError, match=f"^{path}: cannot be read"):
            Quarantine.load(path)


def test_load_rejects_a_row_with_two_hashes(tmp_path: Path) -> None:
    entries = [{"row": "train/a.jsonl:1", "sha256": digit * 64, "because": []} for digit in "001"]
    text = "\n".join(map(json.dumps, entries))
    (tmp_path / "left-out").write_text(text)
    with pytest.raises(DataError, match=r"left-out:3: row 'train/a.jsonl:1' is listed twice"):
        Quarantine.load(tmp_path / "left-out")
