import json
from pathlib import Path
from typing import Any

import pytest

from cls_data import DataError, Quarantine, read_split
from cls_data.annotations.quarantine import line_digest, write_quarantine
from cls_data.annotations.reading import scan_split


def quarantined(root: Path, *sources: str) -> Quarantine:
    write_quarantine(root / "left-out", root, {source: ["some_rule"] for source in sources})
    return Quarantine.load(root / "left-out")


def test_rows_that_are_named_are_left_out(root: Path) -> None:
    every = read_split(root, "train")
    quarantine = quarantined(root, every[3].source, every[29].source, "valid/annotations.jsonl:1")
    assert read_split(root, "train", quarantine=quarantine) == [*every[:3], *every[4:29]]
    assert len(read_split(root, "valid", quarantine=quarantine)) == 8
    assert len(read_split(root, "test", quarantine=quarantine)) == 6


def test_a_row_that_is_no_record_is_left_out_by_its_text(root: Path) -> None:
    lines = [b"nonsense \xff\x00", b'{"image": "gone.png", "suffix": "1"}', b"x" * 2_000_000, b"{}"]
    file = root / "train" / "annotations.jsonl"
    file.write_bytes(file.read_bytes() + b"\n".join(lines))
    quarantine = quarantined(
        root, *(f"train/annotations.jsonl:{number}" for number in range(31, 35))
    )
    rows = scan_split(root, "train", quarantine=quarantine)
    assert (len(rows.records), rows.bad) == (30, [])


def test_a_split_may_be_left_out_wholly(root: Path) -> None:
    quarantine = quarantined(root, *(record.source for record in read_split(root, "test")))
    assert read_split(root, "test", quarantine=quarantine) == []


def test_a_line_says_which_row_and_why(root: Path) -> None:
    write_quarantine(
        root / "new" / "left-out", root, {"train/annotations.jsonl:2": ["one_rule", "another"]}
    )
    (line,) = (root / "new" / "left-out").read_text().splitlines()
    text = (root / "train" / "annotations.jsonl").read_bytes().splitlines()[1]
    assert json.loads(line) == {
        "row": "train/annotations.jsonl:2",
        "sha256": line_digest(text),
        "because": ["one_rule", "another"],
    }


def test_an_empty_quarantine_leaves_nothing_out(root: Path) -> None:
    assert quarantined(root) == Quarantine({})
    assert len(read_split(root, "train", quarantine=quarantined(root))) == 30


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
            "annotations.jsonl:4: the quarantine names this row, but with another",
        ),
        (
            lambda lines: lines.__setitem__(3, lines[3].replace('"10"', '"2"')),
            ":4: the quarantine names this row",
        ),
        (
            lambda lines: lines.__delitem__(slice(3, None)),
            r"1 row\(s\) of the quarantine are not there:\n.*:4\n",
        ),
        (lambda lines: lines.__setitem__(3, ""), r"1 row\(s\) of the quarantine are not there"),
    ],
)
def test_a_quarantine_of_rows_that_were_edited_is_refused(
    root: Path, change: Any, expected: str
) -> None:
    quarantine = quarantined(root, "train/annotations.jsonl:4")
    edit(root, change)
    with pytest.raises(DataError, match=expected) as caught:
        read_split(root, "train", quarantine=quarantine)
    assert "Run `cls-data check ROOT --quarantine FILE` again" in str(caught.value)


def test_rows_may_be_added_below_those_that_are_left_out(root: Path) -> None:
    quarantine = quarantined(root, "train/annotations.jsonl:4")
    edit(root, lambda lines: lines.append(lines[0]))
    assert len(read_split(root, "train", quarantine=quarantine)) == 30


def test_another_split_with_a_longer_name_is_another(root: Path) -> None:
    assert Quarantine({"train2/a.jsonl:1": "", "train/a.jsonl:1": ""}).below("train").rows == {
        "train/a.jsonl:1": ""
    }


def test_rows_of_a_subfolder_of_annotations_are_left_out(root: Path) -> None:
    fold = root / "folds" / "0" / "train"
    fold.mkdir(parents=True)
    fold.joinpath("rows.jsonl").write_text(
        "".join(
            f'{{"image": "../../../train/{number}.png", "suffix": "1"}}\n' for number in range(3)
        )
    )
    quarantine = quarantined(root, "folds/0/train/rows.jsonl:2", "train/annotations.jsonl:1")
    found = read_split(root, "train", annotations="folds/0", quarantine=quarantine)
    assert [record.id for record in found] == ["train/0.png", "train/2.png"]


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
def test_a_file_that_is_no_quarantine_is_refused_by_line(tmp_path: Path, line: bytes) -> None:
    good = json.dumps({"row": "train/a.jsonl:1", "sha256": "0" * 64, "because": []}).encode()
    (tmp_path / "left-out").write_bytes(good + b"\n" + line + b"\n")
    with pytest.raises(DataError, match="left-out:2: not a line of a quarantine"):
        Quarantine.load(tmp_path / "left-out")


def test_a_quarantine_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the quarantine cannot be read"):
        Quarantine.load(tmp_path / "gone")
