"""CSV files as spreadsheets and data sets write them."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cls_data.annotations.reading import read_split
from cls_data.cli.main import main
from cls_data.convert.csv_annotations import convert_csv
from cls_data.convert.csv_text import DELIMITERS, detect_delimiter
from cls_data.errors import DataError


def make_root(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def read_labels(root: Path, split: str = "train") -> dict[str, str]:
    records = read_split(root, split)  # type: ignore[arg-type]
    return {record.id: record.label for record in records}


@pytest.mark.parametrize("delimiter", DELIMITERS.values(), ids=DELIMITERS)
def test_csv_with_any_usual_delimiter_is_detected(tmp_path: Path, delimiter: str) -> None:
    root = make_root(tmp_path, "00000.ppm", "00001.ppm")
    lines = ["Filename,Width,Roi.X1,ClassId", '00000.ppm,"29,5",5, 07 ', "00001.ppm,30,6,1", ",,,"]
    text = "\r\n".join(lines).replace('"29,5"', "29.5").replace(",", delimiter)
    (root / "GT.csv").write_text(text.replace("29.5", '"29,5"'))
    result = convert_csv(root, root / "GT.csv")
    assert read_labels(root) == {"00000.ppm": "07", "00001.ppm": "1"}
    assert read_split(root, "train")[0].metadata == {"Width": "29,5", "Roi.X1": "5"}
    assert "Images from column 'Filename', labels from column 'ClassId'" in result.notes


def test_unquoted_decimal_commas_do_not_hide_the_semicolon(tmp_path: Path) -> None:
    root = make_root(tmp_path, "a.png", "b.png")
    (root / "t.csv").write_text("image;x;y;label\na.png;0,5;1,5;7\nb.png;0,25;1,0;8\n")
    convert_csv(root, root / "t.csv")
    assert read_labels(root) == {"a.png": "7", "b.png": "8"}


@pytest.mark.parametrize(
    ("delimiter", "separator"),
    [("#", "#"), ("semicolon", ";"), ("tab", "\t"), ("\\t", "\t"), (" ", " "), (":", ":")],
)
def test_delimiter_option_takes_names_and_characters(
    tmp_path: Path, delimiter: str, separator: str
) -> None:
    root = make_root(tmp_path, "a.png")
    (root / "t.csv").write_text(f"image{separator}label\na.png{separator}7\n")
    arguments = ["convert", str(root), "--from", "csv", "--csv", str(root / "t.csv")]
    assert main([*arguments, "--delimiter", delimiter]) == 0
    assert read_labels(root) == {"a.png": "7"}


@pytest.mark.parametrize("delimiter", ["", "ab", '"', "\n", "x", "commas"])
def test_impossible_delimiter_is_named(tmp_path: Path, delimiter: str) -> None:
    root = make_root(tmp_path, "a.png")
    (root / "t.csv").write_text("image,label\na.png,7\n")
    with pytest.raises(DataError, match=r"delimiter .*expected comma, semicolon, tab, pipe"):
        convert_csv(root, root / "t.csv", delimiter=delimiter)


def test_separator_line_of_excel_is_understood(tmp_path: Path) -> None:
    root = make_root(tmp_path, "a.png")
    (root / "t.csv").write_text("sep=;\nimage;label\ngone.png;7\n")
    with pytest.raises(DataError, match=r"t\.csv:3: image .*gone\.png' does not exist"):
        convert_csv(root, root / "t.csv")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_unicode_encodings_are_detected(tmp_path: Path, encoding: str) -> None:
    root = make_root(tmp_path, "a.png")
    (root / "t.csv").write_bytes("image;label\na.png;café\n".encode(encoding))
    convert_csv(root, root / "t.csv")
    assert read_labels(root) == {"a.png": "café"}


def test_other_encodings_are_named_with_the_option_that_reads_them(tmp_path: Path) -> None:
    root = make_root(tmp_path, "a.png")
    (root / "t.csv").write_bytes("image,label\na.png,café\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"t\.csv:2: not UTF-8.*--encoding cp1252.*'a.png,café'"):
        convert_csv(root, root / "t.csv")
    with pytest.raises(DataError, match="encoding 'latin9000' is unknown"):
        convert_csv(root, root / "t.csv", encoding="latin9000")
    with pytest.raises(DataError, match="not UTF-16"):
        convert_csv(root, root / "t.csv", encoding="utf-16")
    convert_csv(root, root / "t.csv", encoding="latin-1")
    assert read_labels(root) == {"a.png": "café"}


@pytest.mark.parametrize(
    ("encoding", "cell"), [("utf-7", b"+2AA-"), ("unicode_escape", rb"\udfff")]
)
def test_half_a_character_in_a_table_is_named(tmp_path: Path, encoding: str, cell: bytes) -> None:
    root = make_root(tmp_path, "a.png")
    (root / "t.csv").write_bytes(b"image,label,note\na.png,7," + cell)
    with pytest.raises(DataError, match=r"t\.csv:2: .*half of a character .*\\ud.*--encoding"):
        convert_csv(root, root / "t.csv", encoding=encoding)


def test_an_image_folder_that_is_missing_is_named_once(tmp_path: Path) -> None:
    root = make_root(tmp_path, "crops/a.png")
    (root / "t.csv").write_text("image,label\na.png,7\na.png,7\n")
    with pytest.raises(DataError, match=r"image folder crops: no such .*did you mean .*/crops\?"):
        convert_csv(root, root / "t.csv", image_folder="crops")
    with pytest.raises(DataError, match="image folder crop: no such folder; expected the folder"):
        convert_csv(root, root / "t.csv", image_folder="crop")


def test_columns_are_found_in_any_letter_case_and_near_names_are_given(tmp_path: Path) -> None:
    root = make_root(tmp_path, "a.png")
    (root / "t.csv").write_text("File_Name, CLASS \na.png, 7 \n")
    with pytest.raises(DataError, match="no column 'clazz' for the label; did you mean 'CLASS'"):
        convert_csv(root, root / "t.csv", label="clazz")
    convert_csv(root, root / "t.csv", image="file name", label="Class")
    assert read_labels(root) == {"a.png": "7"}


def test_one_table_in_each_class_folder_is_read_from_their_parent(tmp_path: Path) -> None:
    root = make_root(tmp_path, "Images/00000/0.ppm", "Images/00001/0.ppm")
    for label in ("00000", "00001"):
        table = root / "Images" / label / f"GT-{label}.csv"
        table.write_text(f"Filename;Width;ClassId\n0.ppm;3;{int(label)}\n")
    assert main(["convert", str(root), "--from", "csv", "--csv", str(root / "Images")]) == 0
    assert read_labels(root) == {"Images/00000/0.ppm": "0", "Images/00001/0.ppm": "1"}


def test_image_folder_may_depend_on_the_label(tmp_path: Path) -> None:
    root = make_root(tmp_path, "images/7/0.png", "images/8/0.png")
    (root / "t.csv").write_text("image,label\n0.png,7\n0.png,8\n")
    convert_csv(root, root / "t.csv", image_folder=root / "images" / "{label}")
    assert read_labels(root) == {"images/7/0.png": "7", "images/8/0.png": "8"}


def test_table_in_a_split_folder_is_this_split(tmp_path: Path) -> None:
    root = make_root(tmp_path, "train/a.png", "testing/b.png")
    for split, name in (("train", "a.png"), ("testing", "b.png")):
        (root / split / "labels.csv").write_text(f"image,label\n{name},7\n")
    convert_csv(root, [root / "train" / "labels.csv", root / "testing" / "labels.csv"])
    assert read_labels(root) == {"train/a.png": "7"}
    assert read_labels(root, "test") == {"testing/b.png": "7"}


def test_table_named_like_a_split_is_this_split(tmp_path: Path) -> None:
    root = make_root(tmp_path, "a.png", "b.png")
    (root / "Train.csv").write_text("Path,ClassId\na.png,7\n")
    (root / "Test.csv").write_text("Path,ClassId\nb.png,7\n")
    convert_csv(root, [root / "Train.csv", root / "Test.csv"])
    assert read_labels(root, "test") == {"b.png": "7"}


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_any_line_breaks_are_read_and_counted(tmp_path: Path, line_break: str) -> None:
    root = make_root(tmp_path, "a.png")
    lines = ["image,label,note", 'a.png,7,"two\nlines"', "", "gone.png,8,"]
    (root / "t.csv").write_bytes(line_break.join(lines).encode())
    with pytest.raises(DataError, match=r"t\.csv:5: image .*gone\.png' does not exist"):
        convert_csv(root, root / "t.csv")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (r"images\a.png", None),
        (r".\images\a.png", None),
        ("./images/a.png", None),
        (r"C:\data\set\images\a.png", "did you mean 'images/a.png'?"),
        ("/home/me/set/images/a.png", "did you mean 'images/a.png'?"),
        ("images/A.PNG", "did you mean 'images/a.png'?"),
        ("images/a", "did you mean 'images/a.png'?"),
        ("images", "is a folder"),
        ("../a.png", "is outside the data root"),
    ],
)
def test_paths_of_other_systems_are_read_or_get_a_hint(
    tmp_path: Path, cell: str, expected: str | None
) -> None:
    root = make_root(tmp_path, "images/a.png")
    (root / "t.csv").write_text(f"image,label\n{cell},7\n")
    if expected is None:
        convert_csv(root, root / "t.csv")
        assert read_labels(root) == {"images/a.png": "7"}
        return
    with pytest.raises(DataError) as caught:
        convert_csv(root, root / "t.csv")
    assert "t.csv:2: image" in str(caught.value)
    assert expected in str(caught.value)


def test_repeated_rows_are_skipped_and_contradictions_are_named(tmp_path: Path) -> None:
    root = make_root(tmp_path, "a.png", "b.png")
    (root / "t.csv").write_text("image,label\na.png,7\n\n;\na.png,7\nb.png,8\n".replace(";", ","))
    (root / "u.csv").write_text("image,label,split\na.png,7,train\n./a.png,8,train\na.png,7,test\n")
    with pytest.raises(DataError) as caught:
        convert_csv(root, root / "u.csv")
    message = str(caught.value)
    assert "u.csv:3: image 'a.png' has label '8' in train, but '7' in train at u.csv:2" in message
    assert "u.csv:4: image 'a.png' has label '7' in test" in message
    result = convert_csv(root, root / "t.csv")
    assert "Skipped 1 repeated row(s), the first at t.csv:5" in result.notes
    assert result.row_counts == {"train": 2}


def test_classes_that_look_alike_are_noted(tmp_path: Path) -> None:
    root = make_root(tmp_path, "Shoe/a.png", "shoe/b.png", "007/c.png", "7/d.png")
    (root / "t.csv").write_text("image,label\nShoe/a.png,Shoe\nshoe/b.png,shoe\n007/c.png,007\n")
    notes = convert_csv(root, root / "t.csv").notes
    assert any(note.startswith("Classes 'Shoe' and 'shoe' differ only in") for note in notes)


_names = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=8)


@given(
    st.lists(st.lists(_names, min_size=3, max_size=3), min_size=1, max_size=5),
    st.sampled_from(sorted(DELIMITERS.values())),
)
def test_written_delimiter_is_detected_whatever_the_cells_are(
    rows: list[list[str]], delimiter: str
) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([["image", "label", "x"], *rows])
    assert detect_delimiter(stream.getvalue(), [("image",), ("label",)]) == delimiter


def test_table_given_relative_to_the_root_gets_a_hint(tmp_path: Path) -> None:
    root = make_root(tmp_path, "a.png")
    (root / "only-in-the-root.csv").write_text("image,label\na.png,7\n")
    with pytest.raises(DataError, match=f"did you mean {root / 'only-in-the-root.csv'}?"):
        convert_csv(root, "only-in-the-root.csv")
