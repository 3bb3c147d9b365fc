import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import JsonValue
from rich.console import Console, RenderableType

from cls_data import DataError, DatasetStatistics, Record, read_split
from cls_data.statistics.dataset import image_sizes
from cls_data.statistics.figure import draw
from cls_data.statistics.metadata_slices import NONE, OTHERS, MetadataSlices
from cls_data.statistics.table import Bar, slices_table, statistics_report

WriteSplit = Callable[..., Path]


def record(label: str, metadata: dict[str, JsonValue]) -> Record:
    return Record("1.png", Path("1.png"), label, None, metadata, "train/a.jsonl:1")


def statistics(counts: dict[str, Sequence[int]]) -> DatasetStatistics:
    names = tuple(f"{number:03d}" for number in range(len(counts["train"])))
    return DatasetStatistics.model_validate(
        {
            "classes": names,
            "counts": {split: dict(zip(names, row, strict=True)) for split, row in counts.items()},
            "sizes": {split: {"width": (17, 29.5, 63), "height": (23, 40, 64)} for split in counts},
        }
    )


def shown(renderable: RenderableType) -> str:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_a_set_on_disk_is_counted_and_measured(root: Path) -> None:
    read = DatasetStatistics.read(root)
    assert read.classes == ("1", "10", "2")
    assert read.counts["test"] == {"1": 3, "10": 3, "2": 0}
    assert [read.total(split) for split in ("train", "valid", "test")] == [30, 9, 6]
    assert read.sizes["train"].width == (12, 12.0, 12)
    assert read.sizes["train"].height == (20, 22.0, 24)
    assert read.missing("test") == ("2",)


def test_a_set_without_training_rows_or_with_a_strange_label_is_refused(
    write_split: WriteSplit,
) -> None:
    root = write_split("valid", ["1", "7"])
    with pytest.raises(DataError, match="no training rows"):
        DatasetStatistics.read(root)
    write_split("train", ["1", "2"])
    with pytest.raises(DataError, match=r"valid/annotations\.jsonl:2: label '7'"):
        DatasetStatistics.read(root)


def test_a_class_without_a_training_row_makes_the_imbalance_infinite() -> None:
    assert statistics({"train": [3, 0]}).imbalance_ratio == math.inf


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (30, 20)), (3, (30, 20)), (6, (20, 30))])
def test_sizes_are_those_of_the_upright_image(
    write_split: WriteSplit, suffix: str, orientation: int, size: tuple[int, int]
) -> None:
    root = write_split("train", [], [{"image": f"lying.{suffix}", "suffix": "1"}])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (30, 20)).save(root / f"train/lying.{suffix}", exif=exif)
    assert image_sizes(read_split(root, "train")).tolist() == [list(size)]


def test_sizes_need_the_header_alone_and_unreadable_files_are_all_named(
    write_split: WriteSplit,
) -> None:
    root = write_split("train", ["1", "2", "3", "4"])
    whole = (root / "train/0.png").read_bytes()
    (root / "train/1.png").write_bytes(whole[:60])
    (root / "train/2.png").write_text("not an image")
    (root / "train/3.png").write_bytes(b"")
    records = read_split(root, "train")
    assert image_sizes(records[:2]).tolist() == [[12, 20], [12, 20]]
    with pytest.raises(
        DataError,
        match=r"(?s)2 image\(s\).*annotations\.jsonl:3: train/2\.png.*annotations\.jsonl:4",
    ):
        image_sizes(records)
    assert image_sizes([]).shape == (0, 2)


def test_slices_come_most_frequent_first_and_rows_without_the_key_last() -> None:
    rows: list[tuple[str, dict[str, JsonValue]]] = [
        ("0", {"source": "synthetic"}),
        ("1", {"source": "real"}),
        ("1", {"source": "real"}),
        *[("0", {})] * 5,
    ]
    slices = MetadataSlices.of(("0", "1"), [record(*row) for row in rows], "source")
    assert list(slices.counts) == ["real", "synthetic", NONE]
    assert slices.counts == {
        "real": {"0": 0, "1": 2},
        "synthetic": {"0": 1, "1": 0},
        NONE: {"0": 5, "1": 0},
    }
    assert slices.total(NONE) == 5


def test_values_that_are_no_strings_are_shown_as_json() -> None:
    values: list[JsonValue] = [1, 1.5, True, None, [1, "a"], {"b": 1, "a": "ü"}]
    slices = MetadataSlices.of(("0",), [record("0", {"key": value}) for value in values], "key")
    assert set(slices.counts) == {"1", "1.5", "true", "null", '[1, "a"]', '{"a": "ü", "b": 1}'}


def test_of_many_values_the_twenty_largest_are_kept() -> None:
    rows = [
        record("0", {"game": f"game {number}"}) for number in range(25) for _ in range(number + 1)
    ]
    slices = MetadataSlices.of(("0",), rows, "game")
    assert list(slices.counts) == [*(f"game {number}" for number in range(24, 4, -1)), OTHERS]
    assert slices.total(OTHERS) == 1 + 2 + 3 + 4 + 5


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(0, 40), st.sampled_from(["a", NONE, OTHERS, ""])
)


@given(
    st.lists(
        st.tuples(st.sampled_from("012"), st.none() | VALUES.map(lambda value: {"key": value})),
        max_size=80,
    )
)
def test_slices_hold_every_row_once(rows: list[tuple[str, dict[str, Any] | None]]) -> None:
    slices = MetadataSlices.of(
        ("0", "1", "2"), [record(label, metadata or {}) for label, metadata in rows], "key"
    )
    summed: Counter[str] = Counter()
    for counts in slices.counts.values():
        summed.update(counts)
    assert +summed == Counter(label for label, _ in rows)
    assert len(slices.counts) <= 22
    assert all(map(slices.total, slices.counts))


def test_a_report_names_totals_imbalance_missing_classes_and_sizes() -> None:
    text = shown(statistics_report(statistics({"train": [1280, 64, 20], "valid": [3, 0, 1]})))
    assert "3 classes; rows: train 1,364, valid 4" in text
    assert "imbalance: 64.0-fold in train" in text
    assert "without a row in valid: '001'" in text
    assert "train px, min-median-max: width 17-29.5-63, height 23-40-64" in text
    rows = [line for line in text.splitlines() if "'" in line and "│" in line]
    assert [line.split()[1] for line in rows] == ["'000'", "'001'", "'002'"]
    assert [cell.strip() for cell in rows[0].split("│")[2:4]] == ["1,280", "3"]
    assert rows[0].count("█") > 20 * max(1, rows[1].count("█"))
    assert "every class has rows in every split" in shown(
        statistics_report(statistics({"train": [1, 2]}))
    )


def test_a_report_shows_class_names_of_any_kind_as_they_are() -> None:
    names = ("[/x]", "[red]", "", "<b>")
    sizes = {"train": {"width": (1, 2, 3), "height": (1, 2, 3)}}
    some = DatasetStatistics(classes=names, counts={"train": dict.fromkeys(names, 2)}, sizes=sizes)
    slices = MetadataSlices(key="[k]", classes=names, counts={"[v]": dict.fromkeys(names, 2)})
    for renderable in (statistics_report(some), slices_table(slices)):
        text = shown(renderable)
        assert all(repr(name) in text for name in names)
    assert "[k]" in text
    assert "[v]" in text


@given(st.integers(1, 10**9), st.data())
def test_a_bar_is_full_for_the_largest_and_empty_for_nothing_alone(
    largest: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, largest))
    bar = shown(Bar(count, largest, cells=10)).strip()
    assert len(bar) <= 10
    assert bool(bar) == bool(count)
    assert shown(Bar(largest, largest, cells=10)).strip() == "█" * 10


def test_a_terminal_without_unicode_gets_bars_of_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "encoding", "ascii")
    text = shown(statistics_report(statistics({"train": [64, 1]})))
    assert text.isascii()
    assert "#" * 28 in text


def test_slices_are_shown_a_row_a_class_with_totals() -> None:
    slices = MetadataSlices(
        key="source",
        classes=("0", "1"),
        counts={"synthetic": {"0": 1, "1": 0}, NONE: {"0": 1000, "1": 7}},
    )
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in shown(slices_table(slices)).splitlines()
    ]
    assert [row for row in cells if row] == [
        ["'0'", "1", "1,000"],
        ["'1'", "0", "7"],
        ["all", "1", "1,007"],
    ]


@pytest.mark.parametrize("number_of_classes", [2, 43, 1000])
def test_a_picture_is_drawn_for_few_and_for_many_classes(
    tmp_path: Path, number_of_classes: int
) -> None:
    pytest.importorskip("matplotlib")
    train = [1 + 768 * number // number_of_classes for number in range(number_of_classes)]
    draw(statistics({"train": train, "valid": [0, *train[1:]]}), tmp_path / "plots/classes.png")
    with Image.open(tmp_path / "plots/classes.png") as picture:
        assert picture.format == "PNG"
        assert 500 < picture.width < 8000


def test_a_picture_shows_class_names_that_look_like_formulas(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = (r"$\foo$", "", "<b>")
    sizes = {"train": {"width": (1, 2, 3), "height": (1, 2, 3)}}
    draw(
        DatasetStatistics(classes=names, counts={"train": dict.fromkeys(names, 0)}, sizes=sizes),
        tmp_path / "a.png",
    )
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_without_matplotlib_the_install_line_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DataError, match=r'pip install "cls-data\[figures\]"'):
        draw(statistics({"train": [1, 2]}), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
