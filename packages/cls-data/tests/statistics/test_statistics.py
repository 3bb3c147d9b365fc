import io
import math
import sys
import warnings
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
from cls_data.statistics import (
    MetadataSlices,
    class_distribution_figure,
    save_class_distribution,
    slices_table,
    statistics_report,
)
from cls_data.statistics.dataset import read_image_sizes
from cls_data.statistics.metadata_slices import NONE, OTHERS
from cls_data.statistics.table import Bar
from cls_export.contract.text import short_name

WriteSplit = Callable[..., Path]
SIZES = {"width": (17, 29.5, 63), "height": (23, 40, 64)}


def make_record(label: str, metadata: dict[str, JsonValue]) -> Record:
    return Record("1.png", "", label, None, metadata, "train/a.jsonl:1")


def make_statistics(counts: dict[str, Sequence[int]]) -> DatasetStatistics:
    names = tuple(f"{number:03d}" for number in range(len(counts["train"])))
    by_class = {split: dict(zip(names, row, strict=True)) for split, row in counts.items()}
    return DatasetStatistics.model_validate(
        {"classes": names, "counts": by_class, "sizes": dict.fromkeys(counts, SIZES)}
    )


def statistics_of_classes(names: tuple[str, ...], count: int) -> DatasetStatistics:
    return DatasetStatistics.model_validate(
        {
            "classes": names,
            "counts": {"train": dict.fromkeys(names, count)},
            "sizes": {"train": SIZES},
        }
    )


def render(renderable: RenderableType) -> str:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_read_counts_rows_and_measures_images(root: Path) -> None:
    statistics = DatasetStatistics.read(root)
    assert statistics.classes == ("1", "10", "2")
    assert statistics.counts["test"] == {"1": 3, "10": 3, "2": 0}
    assert [statistics.total(split) for split in ("train", "valid", "test")] == [30, 9, 6]
    assert statistics.sizes["train"].width == (12, 12.0, 12)
    assert statistics.sizes["train"].height == (20, 22.0, 24)
    assert statistics.missing_classes("test") == ("2",)


def test_read_rejects_missing_train_split_and_labels_unknown_to_train(
    write_split: WriteSplit,
) -> None:
    root = write_split("valid", ["1", "7"])
    with pytest.raises(DataError, match="no training rows"):
        DatasetStatistics.read(root)
    write_split("train", ["1", "2"])
    with pytest.raises(DataError, match=r"valid/annotations\.jsonl:2: label '7'"):
        DatasetStatistics.read(root)


def test_imbalance_ratio_is_infinite_when_a_class_has_no_training_row() -> None:
    assert make_statistics({"train": [3, 0]}).imbalance_ratio == math.inf


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (30, 20)), (3, (30, 20)), (6, (20, 30))])
def test_read_image_sizes_applies_exif_orientation(
    write_split: WriteSplit, suffix: str, orientation: int, size: tuple[int, int]
) -> None:
    root = write_split("train", [], [{"image": f"rotated.{suffix}", "suffix": "1"}])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (30, 20)).save(root / f"train/rotated.{suffix}", exif=exif)
    assert read_image_sizes(read_split(root, "train")).tolist() == [list(size)]


def test_read_image_sizes_needs_only_headers_and_lists_all_unreadable_files(
    write_split: WriteSplit,
) -> None:
    root = write_split("train", ["1", "2", "3", "4"])
    content = (root / "train/0.png").read_bytes()
    (root / "train/1.png").write_bytes(content[:60])
    (root / "train/2.png").write_text("not an image")
    (root / "train/3.png").write_bytes(b"")
    records = read_split(root, "train")
    assert read_image_sizes(records[:2]).tolist() == [[12, 20], [12, 20]]
    with pytest.raises(
        DataError,
        match=r"(?s)2 image\(s\).*annotations\.jsonl:3: train/2\.png.*annotations\.jsonl:4",
    ):
        read_image_sizes(records)
    assert read_image_sizes([]).shape == (0, 2)


def test_read_image_sizes_opens_accepted_formats_only(write_split: WriteSplit) -> None:
    root = write_split("train", ["1", "2"])
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    (root / "train/1.png").write_bytes(postscript)
    with pytest.raises(DataError, match=r"annotations\.jsonl:2: train/1\.png: cannot be decoded"):
        read_image_sizes(read_split(root, "train"))


def test_slices_are_sorted_by_frequency_with_missing_values_last() -> None:
    rows: list[tuple[str, dict[str, JsonValue]]] = [
        ("0", {"source": "synthetic"}),
        ("1", {"source": "real"}),
        ("1", {"source": "real"}),
        *[("0", {})] * 5,
    ]
    records = [make_record(*row) for row in rows]
    slices = MetadataSlices.from_records(("0", "1"), records, "source")
    assert list(slices.counts) == ["real", "synthetic", NONE]
    assert slices.counts == {
        "real": {"0": 0, "1": 2},
        "synthetic": {"0": 1, "1": 0},
        NONE: {"0": 5, "1": 0},
    }
    assert slices.total(NONE) == 5


def test_slices_represent_non_string_values_as_json() -> None:
    values: list[JsonValue] = [1, 1.5, True, None, [1, "a"], {"b": 1, "a": "ü"}]
    records = [make_record("0", {"key": value}) for value in values]
    slices = MetadataSlices.from_records(("0",), records, "key")
    assert set(slices.counts) == {"1", "1.5", "true", "null", '[1, "a"]', '{"a": "ü", "b": 1}'}


def test_slices_list_the_twenty_most_frequent_values() -> None:
    records = []
    for number in range(25):
        records += [make_record("0", {"game": f"game {number}"})] * (number + 1)
    slices = MetadataSlices.from_records(("0",), records, "game")
    assert list(slices.counts) == [*(f"game {number}" for number in range(24, 4, -1)), OTHERS]
    assert slices.total(OTHERS) == 1 + 2 + 3 + 4 + 5


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(0, 40), st.sampled_from(["a", NONE, OTHERS, ""])
)
METADATA = st.none() | VALUES.map(lambda value: {"key": value})


@given(st.lists(st.tuples(st.sampled_from("012"), METADATA), max_size=80))
def test_slices_count_every_row_once(rows: list[tuple[str, dict[str, Any] | None]]) -> None:
    records = [make_record(label, metadata or {}) for label, metadata in rows]
    slices = MetadataSlices.from_records(("0", "1", "2"), records, "key")
    summed: Counter[str] = Counter()
    for counts in slices.counts.values():
        summed.update(counts)
    assert +summed == Counter(label for label, _ in rows)
    assert len(slices.counts) <= 22
    assert all(map(slices.total, slices.counts))


def test_report_lists_totals_imbalance_missing_classes_and_sizes() -> None:
    statistics = make_statistics({"train": [1280, 64, 20], "valid": [3, 0, 1]})
    text = render(statistics_report(statistics))
    assert "3 classes; rows: train 1,364, valid 4" in text
    assert "train imbalance: 64.0:1" in text
    assert "classes missing from valid: '001'" in text
    assert "train size in px (min-median-max): width 17-29.5-63, height 23-40-64" in text
    rows = [line for line in text.splitlines() if "'" in line and "│" in line]
    assert [line.split()[1] for line in rows] == ["'000'", "'001'", "'002'"]
    assert [cell.strip() for cell in rows[0].split("│")[2:4]] == ["1,280", "3"]
    assert rows[0].count("█") > 20 * max(1, rows[1].count("█"))
    complete = render(statistics_report(make_statistics({"train": [1, 2]})))
    assert "every class has rows in every split" in complete


def test_report_lists_largest_and_smallest_classes_when_there_are_more_than_max_classes() -> None:
    statistics = make_statistics({"train": [5, 90, 3, 70, 1, 80, 2, 60]})
    text = render(statistics_report(statistics, max_classes=6))
    names = [line.split()[1] for line in text.splitlines() if line.startswith("│")]
    assert names == ["'001'", "'005'", "'003'", "…", "'002'", "'006'", "'004'"]
    assert "'000'" in render(statistics_report(statistics, max_classes=8))


def test_report_lists_at_most_fifty_missing_classes() -> None:
    statistics = make_statistics({"train": [1] * 52, "valid": [0] * 52})
    text = render(statistics_report(statistics))
    assert text.count("'049'") == 2
    assert text.count("'050'") == 1
    assert "and 2 more" in text


def test_report_shows_class_names_with_markup_verbatim() -> None:
    names = ("[/x]", "[red]", "", "<b>")
    statistics = statistics_of_classes(names, count=2)
    slices = MetadataSlices(key="[k]", classes=names, counts={"[v]": dict.fromkeys(names, 2)})
    for renderable in (statistics_report(statistics), slices_table(slices)):
        text = render(renderable)
        assert all(repr(name) in text for name in names)
    assert "[k]" in text
    assert "[v]" in text


@given(st.integers(1, 10**9), st.data())
def test_bar_is_full_for_the_largest_count_and_empty_only_for_zero(
    largest: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, largest))
    bar = render(Bar(count, largest, cells=10)).strip()
    assert len(bar) <= 10
    assert bool(bar) == bool(count)
    assert render(Bar(largest, largest, cells=10)).strip() == "█" * 10


def test_report_draws_ascii_bars_on_an_ascii_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "encoding", "ascii")
    text = render(statistics_report(make_statistics({"train": [64, 1]})))
    assert text.isascii()
    assert "#" * 28 in text


def test_slices_table_has_one_row_per_class_and_totals() -> None:
    slices = MetadataSlices(
        key="source",
        classes=("0", "1"),
        counts={"synthetic": {"0": 1, "1": 0}, NONE: {"0": 1000, "1": 7}},
    )
    rows = []
    for line in render(slices_table(slices)).splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if cells:
            rows.append(cells)
    assert rows == [["'0'", "1", "1,000"], ["'1'", "0", "7"], ["all", "1", "1,007"]]


@pytest.mark.parametrize("num_classes", [2, 43, 1000])
def test_figure_is_drawn_for_few_and_many_classes(tmp_path: Path, num_classes: int) -> None:
    pytest.importorskip("matplotlib")
    train = [1 + 768 * number // num_classes for number in range(num_classes)]
    statistics = make_statistics({"train": train, "valid": [0, *train[1:]]})
    save_class_distribution(statistics, tmp_path / "plots/classes.png")
    with Image.open(tmp_path / "plots/classes.png") as picture:
        assert picture.format == "PNG"
        assert 500 < picture.width < 8000


def test_figure_has_one_panel_per_split_with_counts_above_the_bars() -> None:
    pytest.importorskip("matplotlib")
    statistics = make_statistics({"train": [5, 90, 3], "valid": [1, 0, 2]})
    train, valid = class_distribution_figure(statistics).axes
    assert [text.get_text() for text in train.texts] == ["90", "5", "3"]
    assert [text.get_text() for text in valid.texts] == ["0", "1", "2"]
    assert [text.get_color() for text in valid.texts] == ["red", "black", "black"]


@pytest.mark.parametrize("name", ["a", "x" * 40, "Point guard, away team", "中" * 40])
def test_figure_has_room_for_its_names(name: str) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = class_distribution_figure(statistics_of_classes((name, "b"), count=100_000))
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas.draw()
        content = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    assert 0 <= content.x0 < content.x1 <= width
    assert 0 <= content.y0 < content.y1 <= height


def test_figure_shows_class_names_that_look_like_formulas(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = (r"$\foo$", "", "<b>", "\x1b[31m", "a\nb", "中文", "x" * 10_000)
    statistics = statistics_of_classes(names, count=0)
    labels = class_distribution_figure(statistics).axes[-1].get_xticklabels()
    shown = [r"$\foo$", "(empty)", "<b>", r"\x1b[31m", r"a\nb", "中文", f"{'x' * 20}…{'x' * 20}"]
    assert sorted(label.get_text() for label in labels) == sorted(shown)
    assert not any(label.get_parse_math() for label in labels)
    save_class_distribution(statistics, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["\x1b[31mred", "[/x]", "\u202egpj", "x" * 10_000])
def test_tables_show_names_as_text(name: str) -> None:
    statistics = statistics_of_classes((name, "b"), count=3)
    console = Console(file=io.StringIO(), width=200)
    console.print(statistics_report(statistics))
    slices = MetadataSlices(key=name, classes=(name, "b"), counts={name: {name: 1, "b": 2}})
    console.print(slices_table(slices))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text) < 10_000
    assert short_name(repr(name)) in text


def test_figure_without_matplotlib_raises_with_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DataError, match=r'pip install "cls-data\[figures\]"'):
        save_class_distribution(make_statistics({"train": [1, 2]}), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
