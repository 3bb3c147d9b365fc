import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cls_data.annotations.reading import Record, read_split
from cls_data.convert.conversion import (
    Conversion,
    convert_csv,
    convert_image_folder,
    convert_roboflow,
    roboflow_stem,
)
from cls_data.errors import DataError
from cls_data.splits.splitting import write_splits

NO_VALID = "there is no valid split; make one with `cls-data split`"


def _touch(root: Path, names: Sequence[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(name))
    return root


def _table(root: Path, *lines: str, name: str = "table.csv") -> Path:
    (root / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return root / name


def _read(root: Path, written: Conversion) -> dict[str, list[Record]]:
    """Read every split that was written back, and compare the numbers of rows."""
    found = {str(split): read_split(root, split) for split in written.files}
    assert {split: len(records) for split, records in found.items()} == written.rows
    return found


def _labels(records: Sequence[Record]) -> dict[str, str]:
    return {record.id: record.label for record in records}


def test_class_folders_become_labels(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        [
            "train/00/a.jpg",
            "train/1/b.PNG",
            "train/1/deep/er/c.tiff",
            "valid/00/d.webp",
            "test/1/e.jpeg",
        ],
    )
    written = convert_image_folder(tmp_path)
    found = _read(tmp_path, written)
    assert _labels(found["train"]) == {
        "train/00/a.jpg": "00",
        "train/1/b.PNG": "1",
        "train/1/deep/er/c.tiff": "1",
    }
    assert _labels(found["valid"]) == {"valid/00/d.webp": "00"}
    assert written.files["test"] == tmp_path / "test" / "annotations.jsonl"
    assert json.loads(written.files["test"].read_text()) == {"image": "1/e.jpeg", "suffix": "1"}
    assert written.notes == ()


@pytest.mark.parametrize("name", ["val", "validation", "Val"])
def test_other_names_of_valid_are_annotated_where_valid_is_read(tmp_path: Path, name: str) -> None:
    _touch(tmp_path, ["train/1/a.jpg", f"{name}/1/b.jpg"])
    found = _read(tmp_path, convert_image_folder(tmp_path))
    assert _labels(found["valid"]) == {f"{name}/1/b.jpg": "1"}
    assert f'"../{name}/1/b.jpg"' in (tmp_path / "valid" / "annotations.jsonl").read_text()


def test_class_folders_without_splits_become_train_and_can_be_split(tmp_path: Path) -> None:
    _touch(
        tmp_path, [f"{label}/{number}.jpg" for label in ("7", "007", "ü") for number in range(10)]
    )
    written = convert_image_folder(tmp_path)
    found = _read(tmp_path, written)
    assert Counter(record.label for record in found["train"]) == {"7": 10, "007": 10, "ü": 10}
    assert written.notes == (NO_VALID,)
    assert write_splits(tmp_path).counts["splits/seed-0/valid"] == {"7": 1, "007": 1, "ü": 1}


def test_what_is_left_out_is_counted_and_what_is_hidden_ignored(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        ["train/1/a.jpg", "train/1/notes.txt", "train/1/.hidden.jpg", "train/.cache/b.jpg"],
    )
    _touch(
        tmp_path,
        ["train/loose.jpg", "train/README.md", "valid/1/c.jpg", "elsewhere/1/d.jpg", "README.md"],
    )
    (tmp_path / "train" / "2").mkdir()
    (tmp_path / "train" / "1" / "linked").symlink_to(tmp_path / "valid")
    written = convert_image_folder(tmp_path)
    assert written.rows == {"train": 1, "valid": 1}
    assert set(written.notes) == {
        "train: 2 file(s) that are no images left out",
        "train: 1 image(s) in no class folder left out",
        "train: 1 class folder(s) without an image left out",
        "train: 1 link(s) to folders left out",
        "1 folder(s) beside the splits left out",
    }


@pytest.mark.parametrize("convert", [convert_image_folder, convert_roboflow])
def test_a_folder_without_images_in_class_folders_is_refused(
    tmp_path: Path, convert: Callable[[Path], Conversion]
) -> None:
    with pytest.raises(DataError, match="no such folder"):
        convert(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no image to annotate; expected ROOT/train/"):
        convert(tmp_path)
    _touch(tmp_path, ["train/a.jpg"])
    with pytest.raises(
        DataError,
        match=r"no image to annotate(.|\n)*train: 1 image\(s\) in no class folder left out",
    ):
        convert(tmp_path)


def test_annotations_that_exist_are_kept(tmp_path: Path) -> None:
    _touch(tmp_path, ["1/a.jpg"])
    file = convert_image_folder(tmp_path).files["train"]
    content = file.read_bytes()
    with pytest.raises(
        DataError, match=r"annotations\.jsonl: train has annotations already; they are kept"
    ):
        convert_image_folder(tmp_path)
    with pytest.raises(DataError, match="train has annotations already"):
        convert_csv(tmp_path, _table(tmp_path, "image,label", "1/a.jpg,1"))
    assert file.read_bytes() == content


def test_a_link_that_leaves_the_root_is_refused_and_nothing_written(tmp_path: Path) -> None:
    root = _touch(tmp_path / "root", ["train/1/a.jpg"])
    (root / "train" / "1" / "b.jpg").symlink_to(_touch(tmp_path, ["outside.jpg"]) / "outside.jpg")
    (root / "train" / "1" / "c.jpg").symlink_to(root / "gone.jpg")
    with pytest.raises(
        DataError,
        match=r"train/1/b.jpg: .*leaves the data root(.|\n)*train/1/c.jpg: .*does not exist",
    ):
        convert_image_folder(root)
    assert not (root / "train" / "annotations.jsonl").exists()


def test_a_link_within_the_root_is_read_back(tmp_path: Path) -> None:
    _touch(tmp_path, ["store/a.jpg", "train/1/b.jpg"])
    (tmp_path / "train" / "2").mkdir()
    (tmp_path / "train" / "2" / "a.jpg").symlink_to(tmp_path / "store" / "a.jpg")
    found = _read(tmp_path, convert_image_folder(tmp_path))
    assert _labels(found["train"]) == {"train/1/b.jpg": "1", "store/a.jpg": "2"}


@pytest.mark.skipif(
    sys.platform != "linux", reason="other file systems refuse such names themselves"
)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"train/1/\xff.jpg", "not UTF-8; rename it"),
        (b"train/\xff/a.jpg", "not UTF-8; rename it"),
        (b"train/a\nb/a.jpg", "holds a control character"),
    ],
)
def test_a_name_that_no_annotation_can_hold_is_refused(
    tmp_path: Path, name: bytes, expected: str
) -> None:
    _touch(tmp_path, [os.fsdecode(name)])
    with pytest.raises(DataError, match=expected) as caught:
        convert_image_folder(tmp_path)
    assert str(caught.value).encode()


def test_a_table_gives_labels_splits_groups_and_metadata_as_strings(tmp_path: Path) -> None:
    _touch(tmp_path / "images", ["a.jpg", "b.jpg", "c, d.jpg", "e.jpg"])
    table = _table(
        tmp_path / "images",
        "\ufeffimage,label,split,group,frame,",
        "a.jpg,007,train,game 1,0012,x",
        "",
        '"c, d.jpg",,val,,,',
        "../images/b.jpg,1,Test,game 1,1e3,",
        f"{tmp_path / 'images' / 'e.jpg'},None,train,game 2,nan,",
    )
    written = convert_csv(tmp_path, table)
    found = _read(tmp_path, written)
    assert _labels(found["train"]) == {"images/a.jpg": "007", "images/e.jpg": "None"}
    assert _labels(found["valid"]) == {"images/c, d.jpg": ""}
    assert _labels(found["test"]) == {"images/b.jpg": "1"}
    assert [(record.group, record.metadata) for record in found["train"]] == [
        ("game 1", {"frame": "0012"}),
        ("game 2", {"frame": "nan"}),
    ]
    assert (found["valid"][0].group, found["valid"][0].metadata) == (None, {"frame": ""})
    assert written.notes == ("images/table.csv: 1 column(s) without a name were left out",)


def test_columns_and_the_separator_may_be_named(tmp_path: Path) -> None:
    _touch(tmp_path, ["a.jpg", "b.jpg"])
    table = _table(
        tmp_path, "file;number;part;split;game", "a.jpg;1;train;x;g", "b.jpg;2;valid;y;g"
    )
    written = convert_csv(
        tmp_path, table, image="file", label="number", split="part", group="game", delimiter=";"
    )
    found = _read(tmp_path, written)
    assert (found["valid"][0].label, found["valid"][0].group, found["valid"][0].metadata) == (
        "2",
        "g",
        {"split": "y"},
    )


def test_a_table_without_splits_becomes_train(tmp_path: Path) -> None:
    _touch(tmp_path, ["a.jpg"])
    written = convert_csv(tmp_path, _table(tmp_path, "image,label", "a.jpg,1"))
    assert (written.rows, written.notes) == ({"train": 1}, (NO_VALID,))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "table.csv: the file is empty"),
        ("\n\n", "table.csv: the file is empty"),
        ("image,label\n", "no image to annotate; expected a row an image"),
        (
            "images,label\na.jpg,1\n",
            "table.csv:1: no column 'image' for the image; did you mean 'images'",
        ),
        ("image;label\na.jpg;1\n", "table.csv:1: no column"),
        (
            "file,label\na.jpg,1\n",
            "no column 'image' for the image; the header has 'file', 'label'",
        ),
        ("image,label, label\na.jpg,1,2\n", "table.csv:1: the header names 'label' twice"),
        ("image,label\na.jpg,1\na.jpg\n", "table.csv:3: 1 value"),
        ("image,label\na.jpg,1,2\n", "table.csv:2: 3 value"),
        ("image,label\na.jpg,1\ngone.jpg,1\n", "table.csv:3: image .*gone.jpg' does not exist"),
        (
            'image,label,x\na.jpg,1,"two\nlines"\ngone.jpg,1,\n',
            "table.csv:4: image .*gone.jpg' does not exist",
        ),
        ("image,label\n,1\n", "table.csv:2: image .* does not exist"),
        ("image,label\n../outside.jpg,1\n", "table.csv:2: image .*leaves the data root"),
        ("image,label\n/etc/hostname,1\n", "table.csv:2: image .*leaves the data root"),
        ("image,label\na\0.jpg,1\n", "table.csv:2: image .*cannot be looked up"),
        (
            f"image,label\n{'x' * 5000},1\n",
            "table.csv:2: image .*(cannot be looked up|does not exist)",
        ),
        ('image,label\na.jpg,"1\n2"\n', "table.csv:2: label '1.n2' holds a control character"),
        (
            "image,label,split\na.jpg,1,training\n",
            "table.csv:2: split 'training' is none of train, valid, val",
        ),
        ("image,label,split\na.jpg,1,\n", "table.csv:2: split '' is none of"),
        ('image,label\na.jpg,"1\n', "table.csv:2: not valid CSV"),
        ('image,label\na.jpg,"1"2\n', "table.csv:2: not valid CSV"),
        (f"image,label\na.jpg,{'1' * 140_000}\n", "table.csv:2: not valid CSV"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_file_and_line(
    tmp_path: Path, content: str, expected: str
) -> None:
    root = _touch(tmp_path / "root", ["a.jpg"])
    _touch(tmp_path, ["outside.jpg"])
    (root / "table.csv").write_bytes(content.encode())
    with pytest.raises(DataError, match=expected):
        convert_csv(root, root / "table.csv")
    assert not (root / "train").exists()


def test_a_named_column_must_be_there(tmp_path: Path) -> None:
    _touch(tmp_path, ["a.jpg"])
    table = _table(tmp_path, "image,label,game", "a.jpg,1,g")
    with pytest.raises(DataError, match="no column 'gane' for the group; did you mean 'game'"):
        convert_csv(tmp_path, table, group="gane")
    with pytest.raises(DataError, match="no column 'part' for the split"):
        convert_csv(tmp_path, table, split="part")


def test_a_table_that_is_not_utf_8_is_refused_by_line(tmp_path: Path) -> None:
    _touch(tmp_path, ["a.jpg"])
    (tmp_path / "table.csv").write_bytes("image,label\na.jpg,1\na.jpg,é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"table.csv:3: not UTF-8 .*save the file as UTF-8"):
        convert_csv(tmp_path, tmp_path / "table.csv")


def test_a_table_lies_within_the_root(tmp_path: Path) -> None:
    root = _touch(tmp_path / "root", ["a.jpg"])
    for table in (_table(tmp_path, "image,label", "root/a.jpg,1"), root / "missing.csv", root):
        with pytest.raises(DataError, match="no such file within the data root"):
            convert_csv(root, table)


def test_a_folder_export_of_roboflow_groups_copies_of_one_source_image(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        [
            "train/1/x_jpg.rf.0a.jpg",
            "train/1/x_jpg.rf.0b.jpg",
            "train/2/own.jpg",
            "README.roboflow.txt",
        ],
    )
    _touch(tmp_path, ["valid/1/y.v2_png.rf.0c.jpg"])
    found = _read(tmp_path, convert_roboflow(tmp_path))
    assert [(record.label, record.group) for record in found["train"]] == [
        ("1", "x_jpg"),
        ("1", "x_jpg"),
        ("2", None),
    ]
    assert found["valid"][0].group == "y.v2_png"


def test_a_multi_class_export_of_roboflow_is_read_from_its_tables(tmp_path: Path) -> None:
    _touch(tmp_path, ["train/x_jpg.rf.0a.jpg", "train/z.jpg", "train/forgotten.jpg", "valid/y.jpg"])
    _table(
        tmp_path / "train",
        "filename, 00, 7",
        "x_jpg.rf.0a.jpg, 1, 0",
        "z.jpg, 0, 1",
        name="_classes.csv",
    )
    _table(tmp_path / "valid", "filename, 00, 7", "y.jpg, 0, 1", name="_classes.csv")
    written = convert_roboflow(tmp_path)
    found = _read(tmp_path, written)
    assert _labels(found["train"]) == {"train/x_jpg.rf.0a.jpg": "00", "train/z.jpg": "7"}
    assert [record.group for record in found["train"]] == ["x_jpg", None]
    assert written.notes == ("train: 1 image(s) that _classes.csv does not name left out",)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["filename, a, b", "x.jpg, 1, 0", "x.jpg, 1, 1"],
            r"train/_classes.csv:3: 2 classes \(a, b\); an image has",
        ),
        (
            ["filename, a, b", "x.jpg, 0, 0"],
            "train/_classes.csv:2: no class; an image has exactly one",
        ),
        (["filename, a, b", "x.jpg, 0, yes"], "train/_classes.csv:2: a value is neither 0 nor 1"),
        (
            ["filename, a, b", "gone.jpg, 0, 1"],
            "train/_classes.csv:2: image .*gone.jpg' does not exist",
        ),
        (["filename, a, a", "x.jpg, 0, 1"], "train/_classes.csv:1: the header names 'a' twice"),
        (
            ["file_name, a", "x.jpg, 1"],
            "no column 'filename' for the image; did you mean 'file_name'",
        ),
        ([], "train/_classes.csv: the file is empty"),
        (["filename, a", "x.jpg, 1"], "valid/_classes.csv: missing, though another split has one"),
    ],
)
def test_a_bad_table_of_roboflow_is_refused_by_file_and_line(
    tmp_path: Path, lines: list[str], expected: str
) -> None:
    _touch(tmp_path, ["train/x.jpg", "valid/y.jpg"])
    _table(tmp_path / "train", *lines, name="_classes.csv")
    with pytest.raises(DataError, match=expected):
        convert_roboflow(tmp_path)
    assert not (tmp_path / "train" / "annotations.jsonl").exists()


def test_a_jsonl_export_of_roboflow_is_left_as_it_is(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        _touch(tmp_path / split, ["x_jpg.rf.0a.jpg"])
        row = {"image": "x_jpg.rf.0a.jpg", "prefix": "Classify", "suffix": "23"}
        (tmp_path / split / f"_annotations.{split}.jsonl").write_text(json.dumps(row) + "\n")
    before = sorted(tmp_path.rglob("*"))
    written = convert_roboflow(tmp_path)
    assert (written.files, written.rows) == ({}, {})
    assert written.notes == (
        "Roboflow's JSONL is read as it is (1 in train, 1 in valid); nothing has to be done",
    )
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "valid" / "_annotations.valid.jsonl").write_text('{"messages": []}\n')
    with pytest.raises(DataError, match=r"_annotations\.valid\.jsonl:1: "):
        convert_roboflow(tmp_path)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a_jpg.rf.01.jpg", "a_jpg"),
        ("a.rf.b_png.rf.01.jpg", "a.rf.b_png"),
        ("a.jpg", None),
        (".rf.01.jpg", None),
    ],
)
def test_a_roboflow_name_tells_its_source_image(name: str, stem: str | None) -> None:
    assert roboflow_stem(name) == stem


_cells = st.text(st.characters(codec="utf-8"), max_size=12)


@given(label=_cells, group=_cells, extra=_cells)
def test_any_cells_are_read_back_as_they_were_or_refused_by_line(
    tmp_path_factory: pytest.TempPathFactory, label: str, group: str, extra: str
) -> None:
    root = _touch(tmp_path_factory.mktemp("root"), ["a.jpg"])
    cells = ['"' + cell.replace('"', '""') + '"' for cell in (label, group, extra)]
    (root / "table.csv").write_bytes(f"image,label,group,extra\na.jpg,{','.join(cells)}\n".encode())
    try:
        written = convert_csv(root, root / "table.csv")
    except DataError as error:
        if "table.csv:2: label" in str(error) and not label.isprintable():
            return
        raise
    record = _read(root, written)["train"][0]
    assert (record.label, record.group, record.metadata) == (label, group or None, {"extra": extra})
