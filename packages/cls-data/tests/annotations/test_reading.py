import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cls_data import DataError, read_split
from cls_data.annotations.reading import scan_split


def test_read_split_reads_all_files_in_order(root: Path) -> None:
    more = root / "train" / "synthetic"
    more.mkdir()
    (more / "rows.jsonl").write_text(
        '{"image": "../0.png", "label": "7", "group": "g", "metadata": {"made": 1}}\n'
    )
    records = read_split(root, "train")
    assert [record.label for record in records[:3]] == ["10", "2", "1"]
    assert (records[0].id, records[0].source) == ("train/0.png", "train/annotations.jsonl:1")
    assert (records[-1].id, records[-1].label, records[-1].group) == ("train/0.png", "7", "g")
    assert records[-1].metadata == {"made": 1}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"image": "0.png", "suffix": "1"', "not valid JSON"),
        ('["0.png", "1"]', "object"),
        (
            '{"image": "0.png", "suffix": "1", "lable": "2"}',
            "unknown key 'lable'; valid keys: image, suffix",
        ),
        (
            '{"image": "0.png", "suffix": "1", "label": "2"}',
            "keys 'suffix' and 'label' are both given",
        ),
        ('{"image": "0.png"}', "key 'suffix' is missing"),
        ('{"suffix": "1"}', "key 'image' is missing"),
        (
            '{"image": "0.png", "suffix": 23}',
            'suffix is the number 23, but a class name is a string; write "23"',
        ),
        ('{"image": "0.png", "suffix": null}', "suffix"),
        ('{"image": "", "suffix": "1"}', "image"),
        ('{"image": "gone.png", "suffix": "1"}', "'gone.png' does not exist"),
        (
            '{"image": "/etc/hostname", "suffix": "1"}',
            "must be a path relative to the annotation file's folder",
        ),
        ('{"image": "../../outside.png", "suffix": "1"}', "leaves the data root"),
        ('{"image": "a\\u0000b.png", "suffix": "1"}', "must be a path relative"),
        ('{"image": ".", "suffix": "1"}', "'.' names a folder"),
        ('{"image": "..", "suffix": "1"}', "'..' names a folder"),
        ('{"image": "0.png/", "suffix": "1"}', "'0.png/' names a folder"),
        ('{"image": "folder.png", "suffix": "1"}', "'folder.png' is a folder"),
        ('{"image": "pipe.png", "suffix": "1"}', "is a device, pipe, or socket"),
        ('{"image": "zero.png", "suffix": "1"}', "is a device, pipe, or socket"),
        ('{"image": "loop.png", "suffix": "1"}', "is a link to"),
        ('{"image": "pulled.png", "suffix": "1"}', "fetch the file, for example with `dvc pull`"),
        ('{"image": "folder/../../../outside.png", "suffix": "1"}', "leaves the data root"),
        ('{"image": "folder/out/../../../../outside.png", "suffix": "1"}', "leaves the data root"),
        (
            '{"image": "0.png", "suffix": true}',
            'suffix is true, but a class name is a string; write "true"',
        ),
        ('{"image": "0.png", "suffix": ["1"]}', "suffix: Input should be a valid string"),
        ('{"image": "0.png", "suffix": "1\\n"}', "suffix contains a control character"),
        (
            '{"image": "0.png", "suffix": "1", "suffix": "2"}',
            "key 'suffix' is given more than once",
        ),
        (
            '{"image": "0.png", "suffix": "1", "\\u0073uffix": "1"}',
            "key 'suffix' is given more than once",
        ),
        (
            '{"image": "0.png", "suffix": "1", "metadata": {"a": {"b": 1, "b": 2}}}',
            "key 'b' is given more than once",
        ),
        ('{"image": "0.png", "suffix": "1", "group": 7}', 'a group is a string; write "7"'),
        (
            '{"image": "0.png", "suffix": "1", "metadata": ' + '{"a":' * 5000 + "1" + "}" * 5001,
            "recursion limit",
        ),
        (
            '{"image": "0.png", "suffix": "1", "metadata": {"a": ' + "9" * 5000 + "}}",
            "number out of range",
        ),
        ('{"image": "\\ud800.png", "suffix": "1"}', "stands for half of a character"),
        ('{"image": "0.png", "suffix": "\\uDFFF"}', "stands for half of a character"),
        ('{"image": "0.png", "suffix": "\\ud83dx"}', "stands for half of a character"),
        ('{"image": "0.png", "suffix": "1"}}', "not valid JSON"),
        ("[" * 100_000, "recursion limit"),
        (json.dumps({"image": "x" * 5000, "suffix": "1"}), "cannot be looked up"),
    ],
    ids=lambda text: text[:50],
)
def test_read_split_lists_a_bad_row_by_file_and_line(root: Path, line: str, expected: str) -> None:
    (root.parent / "outside.png").write_bytes(b"")
    (root / "train" / "loop.png").symlink_to(root / "train" / "loop.png")
    (root / "train" / "zero.png").symlink_to("/dev/zero")
    (root / "train" / "pulled.png").symlink_to("../.dvc/cache/gone")
    (root / "train" / "folder.png").mkdir()
    (root / "train" / "folder").mkdir()
    (root / "train" / "folder" / "out").symlink_to(root.parent)
    os.mkfifo(root / "train" / "pipe.png")
    with (root / "train" / "annotations.jsonl").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(DataError) as caught:
        read_split(root, "train")
    assert "train/annotations.jsonl:31: " in str(caught.value)
    assert expected in str(caught.value)
    assert "Fix these rows" in str(caught.value)


def test_read_split_counts_all_bad_rows_and_lists_twenty(root: Path) -> None:
    (root / "valid" / "annotations.jsonl").write_text("nonsense\n" * 25)
    with pytest.raises(DataError, match=r"25 bad row\(s\)(.|\n)*:20: (.|\n)* 5 more"):
        read_split(root, "valid")


def test_read_split_returns_nothing_for_a_missing_split(tmp_path: Path) -> None:
    assert read_split(tmp_path, "test") == []


@pytest.mark.parametrize("files", [[], ["annotations.jsonl"]])
def test_read_split_rejects_an_empty_split(tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "valid").mkdir()
    for name in files:
        (tmp_path / "valid" / name).write_text("\n")
    with pytest.raises(DataError, match="the split is empty"):
        read_split(tmp_path, "valid")


def test_read_split_rejects_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder; expected a data root"):
        read_split(tmp_path / "nowhere", "train")


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"image": "0.png", "suffix": "1", "k" * 300_000: 1}),
        json.dumps({"image": "0.png", "suffix": "1", **{str(key): key for key in range(10_000)}}),
        json.dumps({"image": "/" * 300_000, "suffix": "1"}),
        json.dumps({"image": "../" * 100 + "x/" * 1000, "suffix": "1"}),
        "x" * 1_500_000,
    ],
    ids=lambda text: text[:50],
)
def test_the_reason_for_a_long_bad_row_is_short(root: Path, line: str) -> None:
    (root / "train" / "annotations.jsonl").write_text(line + "\n")
    (bad,) = scan_split(root, "train").bad_rows
    assert bad.source == "train/annotations.jsonl:1"
    assert len(bad.reason) < 600


def test_scan_split_separates_records_from_bad_rows(root: Path) -> None:
    (root / "test" / "annotations.jsonl").write_text(
        '{"image": "0.png", "suffix": "1"}\n[]\n{"image": "x", "suffix": ""}'
    )
    rows = scan_split(root, "test")
    assert [record.source for record in rows.records] == ["test/annotations.jsonl:1"]
    assert [(bad.source, bad.kind) for bad in rows.bad_rows] == [
        ("test/annotations.jsonl:2", "schema"),
        ("test/annotations.jsonl:3", "image_file"),
    ]


def test_an_annotation_file_with_a_name_that_is_not_utf8_is_rejected(root: Path) -> None:
    folder = root / "train" / os.fsdecode(b"\xff")
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"image": "../0.png", "suffix": "1"}')
    with pytest.raises(
        DataError, match=r"\\udcff/rows.jsonl': the path is not valid UTF-8"
    ) as caught:
        read_split(root, "train")
    str(caught.value).encode()


def test_read_split_skips_a_byte_order_mark_and_blank_lines(root: Path) -> None:
    text = b'\xef\xbb\xbf{"image": "0.png", "suffix": "1"}\n\n  \n{"image": "1.png", "suffix": "2"}'
    (root / "train" / "annotations.jsonl").write_bytes(text)
    assert [record.source[-2:] for record in read_split(root, "train")] == [":1", ":4"]


_rows = st.fixed_dictionaries(
    {
        "image": st.text() | st.integers() | st.just("0.png"),
        "suffix": st.text() | st.integers() | st.none(),
    },
    optional={
        "group": st.text() | st.floats(),
        "metadata": st.dictionaries(st.text(), st.integers()),
        "x": st.none(),
    },
)


@given(line=st.binary(max_size=200) | _rows.map(lambda row: json.dumps(row).encode()))
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_line_gives_a_record_or_an_error_with_its_line(root: Path, line: bytes) -> None:
    (root / "test" / "annotations.jsonl").write_bytes(b'{"image": "0.png", "suffix": "1"}\n' + line)
    try:
        records = read_split(root, "test")
    except DataError as error:
        finding = str(error)
        records = []
    else:
        finding = "test/annotations.jsonl:"
    assert "test/annotations.jsonl:" in finding
    assert all(record.path.is_file() for record in records)
