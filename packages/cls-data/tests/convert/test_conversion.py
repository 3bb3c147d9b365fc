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
from cls_data.convert.annotation_writer import ConversionResult
from cls_data.convert.csv_annotations import convert_csv
from cls_data.convert.image_folder import convert_image_folder
from cls_data.convert.roboflow import convert_roboflow
from cls_data.errors import DataError
from cls_data.splits.splitting import write_splits

NO_VALID = "No valid split; create one with `cls-data split`"


def _touch(root: Path, names: Sequence[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(name))
    return root


def _table(root: Path, *lines: str, name: str = "table.csv") -> Path:
    (root / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return root / name


def _read(root: Path, result: ConversionResult) -> dict[str, list[Record]]:
    """Read every written split, and compare the numbers of rows."""
    records = {str(split): read_split(root, split) for split in result.files}
    assert {split: len(rows) for split, rows in records.items()} == result.row_counts
    return records


def _labels(records: Sequence[Record]) -> dict[str, str]:
    return {record.id: record.label for record in records}


def test_image_folder_uses_class_folders_as_labels(tmp_path: Path) -> None:
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
    result = convert_image_folder(tmp_path)
    records = _read(tmp_path, result)
    assert _labels(records["train"]) == {
        "train/00/a.jpg": "00",
        "train/1/b.PNG": "1",
        "train/1/deep/er/c.tiff": "1",
    }
    assert _labels(records["valid"]) == {"valid/00/d.webp": "00"}
    assert result.files["test"] == tmp_path / "test" / "annotations.jsonl"
    assert json.loads(result.files["test"].read_text()) == {"image": "1/e.jpeg", "suffix": "1"}
    assert result.notes == ()


@pytest.mark.parametrize("name", ["val", "validation", "Val"])
def test_image_folder_accepts_other_names_of_valid(tmp_path: Path, name: str) -> None:
    _touch(tmp_path, ["train/1/a.jpg", f"{name}/1/b.jpg"])
    records = _read(tmp_path, convert_image_folder(tmp_path))
    assert _labels(records["valid"]) == {f"{name}/1/b.jpg": "1"}
    assert f'"../{name}/1/b.jpg"' in (tmp_path / "valid" / "annotations.jsonl").read_text()


def test_image_folder_without_splits_becomes_train(tmp_path: Path) -> None:
    _touch(
        tmp_path, [f"{label}/{number}.jpg" for label in ("7", "007", "ü") for number in range(10)]
    )
    result = convert_image_folder(tmp_path)
    records = _read(tmp_path, result)
    assert Counter(record.label for record in records["train"]) == {"7": 10, "007": 10, "ü": 10}
    assert result.notes == (NO_VALID,)
    assert write_splits(tmp_path).counts["splits/seed-0/valid"] == {"7": 1, "007": 1, "ü": 1}


def test_a_detection_export_is_noted_to_have_a_single_class(tmp_path: Path) -> None:
    _touch(tmp_path, ["train/images/a.jpg", "train/labels/a.txt", "valid/images/b.jpg"])
    result = convert_roboflow(tmp_path)
    assert "All rows have the label 'images'; training needs two classes" in result.notes


def test_image_folder_may_have_a_class_with_the_name_of_a_split(tmp_path: Path) -> None:
    _touch(tmp_path, ["bus/a.jpg", "train/b.jpg"])
    result = convert_image_folder(tmp_path)
    assert result.row_counts == {"train": 2}
    assert [record.label for record in read_split(tmp_path, "train")] == ["bus", "train"]


def test_image_folder_counts_skipped_files_and_ignores_hidden_ones(tmp_path: Path) -> None:
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
    result = convert_image_folder(tmp_path)
    assert result.row_counts == {"train": 1, "valid": 1}
    assert set(result.notes) == {
        "Skipped files: 2 .md, 2 hidden, 1 .txt, 1 link to a folder that is searched anyway",
        "train: skipped 1 image(s) outside of class folders",
        "train: skipped 1 class folder(s) without images",
        "Skipped 1 folder(s) next to the splits",
        "All rows have the label '1'; training needs two classes",
    }


@pytest.mark.parametrize("convert", [convert_image_folder, convert_roboflow])
def test_conversion_rejects_a_root_without_class_folders(
    tmp_path: Path, convert: Callable[[Path], ConversionResult]
) -> None:
    with pytest.raises(DataError, match="no such folder"):
        convert(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no images to annotate; expected .*ROOT/train/"):
        convert(tmp_path)
    _touch(tmp_path, ["train/a.jpg"])
    with pytest.raises(
        DataError, match=r"train(/ has|: skipped) .*(but no|outside of) class folders"
    ):
        convert(tmp_path)


def test_conversion_does_not_overwrite_annotations(tmp_path: Path) -> None:
    _touch(tmp_path, ["1/a.jpg"])
    file = convert_image_folder(tmp_path).files["train"]
    content = file.read_bytes()
    assert convert_image_folder(tmp_path).files["train"] == file
    _touch(tmp_path, ["1/b.jpg"])
    with pytest.raises(
        DataError, match=r"annotations\.jsonl: train already has annotations; move them away first"
    ):
        convert_image_folder(tmp_path)
    with pytest.raises(DataError, match="train already has annotations"):
        convert_csv(tmp_path, _table(tmp_path, "image,label", "1/a.jpg,2"))
    assert file.read_bytes() == content


@pytest.mark.parametrize("store", ["root/store", "elsewhere"])
def test_image_folder_names_a_linked_image_by_its_link(tmp_path: Path, store: str) -> None:
    root = _touch(tmp_path / "root", ["train/1/b.jpg"])
    _touch(tmp_path / store, ["00ff"])
    (root / "train" / "2").mkdir()
    (root / "train" / "2" / "a.jpg").symlink_to(tmp_path / store / "00ff")
    records = _read(root, convert_image_folder(root))
    assert _labels(records["train"]) == {"train/1/b.jpg": "1", "train/2/a.jpg": "2"}


@pytest.mark.skipif(
    sys.platform != "linux", reason="other file systems refuse such names themselves"
)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"train/1/\xff.jpg", "not UTF-8; rename it"),
        (b"train/\xff/a.jpg", "not UTF-8; rename it"),
        (b"train/a\nb/a.jpg", "contains a control character"),
    ],
)
def test_image_folder_rejects_names_that_json_cannot_hold(
    tmp_path: Path, name: bytes, expected: str
) -> None:
    _touch(tmp_path, [os.fsdecode(name)])
    with pytest.raises(DataError, match=expected) as caught:
        convert_image_folder(tmp_path)
    assert str(caught.value).encode()


def test_csv_reads_labels_splits_groups_and_metadata_as_strings(tmp_path: Path) -> None:
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
    result = convert_csv(tmp_path, table)
    records = _read(tmp_path, result)
    assert _labels(records["train"]) == {"images/a.jpg": "007", "images/e.jpg": "None"}
    assert _labels(records["valid"]) == {"images/c, d.jpg": ""}
    assert _labels(records["test"]) == {"images/b.jpg": "1"}
    assert [(record.group, record.metadata) for record in records["train"]] == [
        ("game 1", {"frame": "0012"}),
        ("game 2", {"frame": "nan"}),
    ]
    assert (records["valid"][0].group, records["valid"][0].metadata) == (None, {"frame": ""})
    assert result.notes == (
        "images/table.csv: skipped 1 column(s) without a name",
        "1 row(s) have an empty label, the first at images/table.csv:4",
    )


def test_csv_accepts_column_names(tmp_path: Path) -> None:
    _touch(tmp_path, ["a.jpg", "b.jpg"])
    table = _table(
        tmp_path, "file,number,part,split,game", "a.jpg,1,train,x,g", "b.jpg,2,valid,y,g"
    )
    result = convert_csv(tmp_path, table, image="file", label="number", split="part", group="game")
    records = _read(tmp_path, result)
    assert (records["valid"][0].label, records["valid"][0].group, records["valid"][0].metadata) == (
        "2",
        "g",
        {"split": "y"},
    )


def test_csv_without_split_column_becomes_train(tmp_path: Path) -> None:
    _touch(tmp_path, ["a.jpg"])
    result = convert_csv(tmp_path, _table(tmp_path, "image,label", "a.jpg,1"))
    assert result.row_counts == {"train": 1}
    assert NO_VALID in result.notes


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "table.csv: empty file"),
        ("\n\n", "table.csv: empty file"),
        ("image,label\n", "no images to annotate; expected one row per image"),
        (
            "images,label\na.jpg,1\n",
            "table.csv:1: no column 'image' for the image; .* did you mean 'images'",
        ),
        ("a.jpg,1\n", "table.csv:1: no column .*--image-column .*valid names: 1, a.jpg"),
        ("file,path,label\na.jpg,a.jpg,1\n", "may be in column 'file' or 'path'; choose one with"),
        ("IMAGE,Image,label\na.jpg,a.jpg,1\n", "'IMAGE' and 'Image' are spelled like 'image'"),
        ("image,label, label\na.jpg,1,2\n", "table.csv:1: column 'label' occurs twice"),
        ("image,label\na.jpg,1\na.jpg\n", "table.csv:3: 1 value"),
        ("image,label\na.jpg,1,2\n", "table.csv:2: 3 value"),
        ("image,label\na.jpg,1\ngone.jpg,1\n", "table.csv:3: image .*gone.jpg' does not exist"),
        (
            'image,label,x\na.jpg,1,"two\nlines"\ngone.jpg,1,\n',
            "table.csv:4: image .*gone.jpg' does not exist",
        ),
        ("image,label\n,1\n", "table.csv:2: the image cell is empty"),
        ("image,label\n../outside.jpg,1\n", "table.csv:2: image .*is outside the data root"),
        ("image,label\n/etc/hostname,1\n", "table.csv:2: image .*is outside the data root"),
        ("image,label\na\0.jpg,1\n", "table.csv:2: image .*cannot be opened"),
        (
            f"image,label\n{'x' * 5000},1\n",
            "table.csv:2: image .*(cannot be opened|does not exist)",
        ),
        ('image,label\na.jpg,"1\n2"\n', "table.csv:2: label '1.n2' contains a control character"),
        (
            "image,label,split\na.jpg,1,trains\n",
            "table.csv:2: split 'trains' is not one of train, training, valid, val",
        ),
        ("image,label,split\na.jpg,1,\n", "table.csv:2: split '' is not one of"),
        ('image,label\na.jpg,"1\n', "table.csv:2: not valid CSV"),
        ('image,label\na.jpg,"1"2\n', "table.csv:2: not valid CSV"),
        (f"image,label\na.jpg,{'1' * 140_000}\n", "table.csv:2: not valid CSV"),
    ],
)
def test_csv_errors_name_file_and_line(tmp_path: Path, content: str, expected: str) -> None:
    root = _touch(tmp_path / "root", ["a.jpg"])
    _touch(tmp_path, ["outside.jpg"])
    (root / "table.csv").write_bytes(content.encode())
    with pytest.raises(DataError, match=expected):
        convert_csv(root, root / "table.csv")
    assert not (root / "train").exists()


def test_csv_rejects_a_missing_column(tmp_path: Path) -> None:
    _touch(tmp_path, ["a.jpg"])
    table = _table(tmp_path, "image,label,game", "a.jpg,1,g")
    with pytest.raises(DataError, match="no column 'gane' for the group; did you mean 'game'"):
        convert_csv(tmp_path, table, group="gane")
    with pytest.raises(DataError, match="no column 'part' for the split"):
        convert_csv(tmp_path, table, split="part")


def test_csv_rejects_text_that_is_not_utf_8(tmp_path: Path) -> None:
    _touch(tmp_path, ["a.jpg"])
    (tmp_path / "table.csv").write_bytes("image,label\na.jpg,1\na.jpg,é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"table.csv:3: not UTF-8 .*save the file as UTF-8"):
        convert_csv(tmp_path, tmp_path / "table.csv")


def test_csv_must_be_inside_the_root(tmp_path: Path) -> None:
    root = _touch(tmp_path / "root", ["a.jpg"])
    table = _table(tmp_path, "image,label", "root/a.jpg,1")
    with pytest.raises(DataError, match=r"no such file in the data root .*; move the CSV file"):
        convert_csv(root, table)


@pytest.mark.parametrize("name", ["nope.csv", "root/nope.csv"])
def test_a_table_that_exists_nowhere_is_not_to_be_moved(tmp_path: Path, name: str) -> None:
    root = _touch(tmp_path / "root", ["a.jpg"])
    with pytest.raises(DataError, match="does not exist; expected a CSV file in") as error:
        convert_csv(root, tmp_path / name)
    assert "move" not in str(error.value)


def test_roboflow_folder_export_groups_copies_of_one_source_image(tmp_path: Path) -> None:
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
    records = _read(tmp_path, convert_roboflow(tmp_path))
    assert [(record.label, record.group) for record in records["train"]] == [
        ("1", "x_jpg"),
        ("1", "x_jpg"),
        ("2", None),
    ]
    assert records["valid"][0].group == "y.v2_png"


def test_roboflow_multi_class_export_is_read_from_its_tables(tmp_path: Path) -> None:
    _touch(tmp_path, ["train/x_jpg.rf.0a.jpg", "train/z.jpg", "train/forgotten.jpg", "valid/y.jpg"])
    _table(
        tmp_path / "train",
        "filename, 00, 7",
        "x_jpg.rf.0a.jpg, 1, 0",
        "z.jpg, 0, 1",
        name="_classes.csv",
    )
    _table(tmp_path / "valid", "filename, 00, 7", "y.jpg, 0, 1", name="_classes.csv")
    result = convert_roboflow(tmp_path)
    records = _read(tmp_path, result)
    assert _labels(records["train"]) == {"train/x_jpg.rf.0a.jpg": "00", "train/z.jpg": "7"}
    assert [record.group for record in records["train"]] == ["x_jpg", None]
    assert result.notes == ("train: skipped 1 image(s) not in _classes.csv",)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["filename, a, b", "x.jpg, 1, 0", "x.jpg, 1, 1"],
            r"train/_classes.csv:3: 2 classes are marked with 1 \(a, b\); multi-label",
        ),
        (["filename, a, b", "x.jpg, 0, 0"], "train/_classes.csv:2: no class is marked with 1"),
        (["filename, a, b", "x.jpg, 0, yes"], "train/_classes.csv:2: each value must be 0 or 1"),
        (
            ["filename, a, b", "gone.jpg, 0, 1"],
            "train/_classes.csv:2: image .*gone.jpg' does not exist",
        ),
        (["filename, a, a", "x.jpg, 0, 1"], "train/_classes.csv:1: column 'a' occurs twice"),
        (
            ["filenames, a", "x.jpg, 1"],
            "no column 'filename' for the image; did you mean 'filenames'",
        ),
        ([], "train/_classes.csv: empty file"),
        (["filename, a", "x.jpg, 1"], "valid/_classes.csv: missing, but another split has one"),
    ],
)
def test_roboflow_table_errors_name_file_and_line(
    tmp_path: Path, lines: list[str], expected: str
) -> None:
    _touch(tmp_path, ["train/x.jpg", "valid/y.jpg"])
    _table(tmp_path / "train", *lines, name="_classes.csv")
    with pytest.raises(DataError, match=expected):
        convert_roboflow(tmp_path)
    assert not (tmp_path / "train" / "annotations.jsonl").exists()


def test_roboflow_jsonl_export_is_validated_and_not_changed(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        _touch(tmp_path / split, ["x_jpg.rf.0a.jpg"])
        row = {"image": "x_jpg.rf.0a.jpg", "prefix": "Classify", "suffix": "23"}
        (tmp_path / split / f"_annotations.{split}.jsonl").write_text(json.dumps(row) + "\n")
    before = sorted(tmp_path.rglob("*"))
    result = convert_roboflow(tmp_path)
    assert (result.files, result.row_counts) == ({}, {})
    assert result.notes == (
        "Roboflow's JSONL export needs no conversion (rows: 1 in train, 1 in valid)",
    )
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "valid" / "_annotations.valid.jsonl").write_text('{"messages": []}\n')
    with pytest.raises(DataError, match=r"_annotations\.valid\.jsonl:1: "):
        convert_roboflow(tmp_path)


_cells = st.text(st.characters(codec="utf-8"), max_size=12)


@given(label=_cells, group=_cells, extra=_cells)
def test_csv_cells_are_read_back_unchanged_or_rejected_by_line(
    tmp_path_factory: pytest.TempPathFactory, label: str, group: str, extra: str
) -> None:
    root = _touch(tmp_path_factory.mktemp("root"), ["a.jpg"])
    cells = ['"' + cell.replace('"', '""') + '"' for cell in (label, group, extra)]
    (root / "table.csv").write_bytes(f"image,label,group,extra\na.jpg,{','.join(cells)}\n".encode())
    try:
        result = convert_csv(root, root / "table.csv")
    except DataError as error:
        if "table.csv:2: label" in str(error) and not label.isprintable():
            return
        raise
    record = _read(root, result)["train"][0]
    label, group, extra = (_stripped(cell) for cell in (label, group, extra))
    assert (record.label, record.group, record.metadata) == (label, group or None, {"extra": extra})


def _stripped(cell: str) -> str:
    return cell.strip().strip("\ufeff\u200b").strip()
