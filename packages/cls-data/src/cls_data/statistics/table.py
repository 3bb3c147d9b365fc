"""Statistics for a terminal."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from cls_data.statistics.dataset import DatasetStatistics
from cls_data.statistics.metadata_slices import MetadataSlices

_BAR_CELLS = 28
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar in eighths of a cell, or in whole `#` on a terminal that has ASCII alone; nothing only for zero.

    Attributes:
        count: what it shows.
        largest: what fills all cells, at least 1.
        cells: its greatest length.
    """

    count: int
    largest: int
    cells: int = _BAR_CELLS

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.ascii_only:
            yield Text("#" * self._steps(self.cells))
            return
        whole, eighths = divmod(self._steps(self.cells * 8), 8)
        yield Text((_EIGHTHS[8] * whole + _EIGHTHS[eighths]).rstrip(), style="cyan")

    def _steps(self, steps: int) -> int:
        return max(round(self.count / self.largest * steps), min(self.count, 1))


def statistics_report(statistics: DatasetStatistics) -> Group:
    """Return totals, imbalance, missing classes and sizes as lines, then a table of all classes in index order.

    The bars show the training rows. Class names are quoted, so that an empty one is seen.
    """
    splits = list(statistics.counts)
    missing = [line for split in splits if (line := _missing(statistics, split))]
    sizes = [_sizes(statistics, split) for split in splits]
    totals = ", ".join(f"{split} {statistics.total(split):,}" for split in splits)
    head = [
        f"{len(statistics.classes)} classes; rows: {totals}",
        f"imbalance: {statistics.imbalance_ratio:.1f}-fold in train",
        *(missing or ["every class has rows in every split"]),
        *sizes,
    ]
    table = _counts_table(splits)
    table.add_column("train rows", width=_BAR_CELLS)
    largest = max(1, *statistics.counts["train"].values())
    for name in statistics.classes:
        counts = [statistics.counts[split][name] for split in splits]
        table.add_row(
            Text(repr(name)), *map(_number, counts), Bar(statistics.counts["train"][name], largest)
        )
    return Group(*map(Text, head), table)


def slices_table(slices: MetadataSlices) -> Table:
    """Return a table of a row a class and a column a value, totals at the foot.

    It is as wide as the slices are many: for 80 columns of a terminal, count with a `limit` of about 6.
    """
    table = _counts_table(slices.counts)
    table.title = Text(f"rows by {slices.key}")
    for name in slices.classes:
        table.add_row(
            Text(repr(name)), *(_number(counts[name]) for counts in slices.counts.values())
        )
    table.add_section()
    table.add_row("all", *(f"{slices.total(value):,}" for value in slices.counts))
    return table


def _counts_table(columns: Iterable[str]) -> Table:
    table = Table("class")
    for column in columns:
        table.add_column(Text(column), justify="right")
    return table


def _number(count: int) -> Text:
    return Text(f"{count:,}", style="" if count else "bold red")


def _missing(statistics: DatasetStatistics, split: str) -> str:
    names = statistics.missing(split)
    return f"without a row in {split}: {', '.join(map(repr, names))}" if names else ""


def _sizes(statistics: DatasetStatistics, split: str) -> str:
    size = statistics.sizes[split]
    width, height = (f"{low}-{middle:g}-{high}" for low, middle, high in (size.width, size.height))
    return f"{split} px, min-median-max: width {width}, height {height}"
