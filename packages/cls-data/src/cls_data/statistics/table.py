"""Dataset statistics as rich renderables for a terminal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from cls_data.gate.text import count_classes
from cls_data.statistics.dataset import DatasetStatistics
from cls_data.statistics.metadata_slices import MetadataSlices
from cls_export.contract.text import short_name

_BAR_CELLS = 28
_MAX_NAMES = 50
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True, slots=True)
class Bar:
    """Horizontal bar, drawn in eighths of a cell, or in `#` on an ASCII terminal.

    Any count above 0 draws at least one step. A bar of the count `largest` has the full length.
    """

    count: int
    largest: int
    cells: int = _BAR_CELLS

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.ascii_only:
            length = self._steps(self.cells)
            yield Text("#" * length)
            return
        whole, eighths = divmod(self._steps(self.cells * 8), 8)
        bar = _EIGHTHS[8] * whole + _EIGHTHS[eighths]
        yield Text(bar.rstrip(), style="cyan")

    def _steps(self, steps: int) -> int:
        if self.count == 0:
            return 0
        exact = self.count / self.largest * steps
        return max(round(exact), 1)


def statistics_report(statistics: DatasetStatistics, *, max_classes: int | None = None) -> Group:
    """Return totals, imbalance, missing classes, and image sizes, then a table of the classes.

    The bars show training rows. Class names are quoted, so that an empty name is visible. If there
    are more than `max_classes`, the table lists the largest and the smallest training classes.
    """
    lines = _summary_lines(statistics)
    splits = list(statistics.counts)
    train_counts = statistics.counts["train"]
    largest = max(1, *train_counts.values())

    table = _counts_table(splits)
    table.add_column("train rows", width=_BAR_CELLS)

    for name in _listed_classes(statistics, max_classes):
        if name is None:
            table.add_row(*["…"] * (len(splits) + 1))
            continue
        numbers = [_number(statistics.counts[split][name]) for split in splits]
        table.add_row(_class_name(name), *numbers, Bar(train_counts[name], largest))
    return Group(*map(Text, lines), table)


def slices_table(slices: MetadataSlices) -> Table:
    """Return a table with one row per class, one column per value, and a row of totals."""
    table = _counts_table(slices.counts)
    table.title = Text(f"rows by {short_name(slices.key)}")
    for name in slices.classes:
        numbers = [_number(counts[name]) for counts in slices.counts.values()]
        table.add_row(_class_name(name), *numbers)
    table.add_section()
    totals = [f"{slices.total(value):,}" for value in slices.counts]
    table.add_row("all", *totals)
    return table


def _summary_lines(statistics: DatasetStatistics) -> list[str]:
    splits = list(statistics.counts)
    totals = ", ".join(f"{split} {statistics.total(split):,}" for split in splits)
    lines = [
        f"{count_classes(len(statistics.classes))}; rows: {totals}",
        f"train imbalance: {statistics.imbalance_ratio:.1f}:1",
    ]

    is_complete = True
    for split in splits:
        missing = statistics.missing_classes(split)
        if missing:
            is_complete = False
            lines.append(f"classes missing from {split}: {_name_list(missing)}")
    if is_complete:
        lines.append("every class has rows in every split")

    for split in splits:
        size = statistics.sizes[split]
        width = _range_text(size.width)
        height = _range_text(size.height)
        lines.append(f"{split} size in px (min-median-max): width {width}, height {height}")
    return lines


def _name_list(names: Sequence[str]) -> str:
    listed = ", ".join(map(repr, names[:_MAX_NAMES]))
    if len(names) <= _MAX_NAMES:
        return listed
    return f"{listed}, and {len(names) - _MAX_NAMES} more"


def _range_text(size_range: tuple[int, float, int]) -> str:
    minimum, median, maximum = size_range
    return f"{minimum}-{median:g}-{maximum}"


def _listed_classes(statistics: DatasetStatistics, max_classes: int | None) -> list[str | None]:
    """Return the classes to list; None stands for the classes left out."""
    names: list[str | None] = list(statistics.classes)
    if max_classes is None or len(names) <= max_classes:
        return names
    train_counts = statistics.counts["train"]
    by_size = sorted(statistics.classes, key=lambda name: -train_counts[name])

    half = max(1, max_classes // 2)
    largest = by_size[:half]
    smallest = by_size[-half:]
    return [*largest, None, *smallest]


def _counts_table(columns: Iterable[str]) -> Table:
    table = Table("class")
    for column in columns:
        table.add_column(Text(short_name(column)), justify="right")
    return table


def _class_name(name: str) -> Text:
    return Text(short_name(repr(name)))


def _number(count: int) -> Text:
    style = "" if count else "bold red"
    return Text(f"{count:,}", style=style)
