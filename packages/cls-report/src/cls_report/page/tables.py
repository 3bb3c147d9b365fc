"""Table cells: text, sort key, and interval bar."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cls_report.page.blocks import CellValue, Column, Score, Table
from cls_report.page.number_format import (
    UNKNOWN,
    Unit,
    all_values,
    common_decimals,
    format_interval,
    format_number,
    has_negative,
    is_known,
)
from cls_report.statistics.estimates import Estimate


class Bar(NamedTuple):
    """An interval bar, in percent of its width. `zero` is the position of 0; 0 for no mark."""

    value: float
    low: float
    high: float
    zero: float


class Cell(NamedTuple):
    """One cell.

    Attributes:
        text: The value.
        interval: Its interval in parentheses, or empty.
        key: The sort key, empty if unknown; None for text, which is sorted by itself.
        bar: The interval bar, if there is one.
    """

    text: str
    interval: str = ""
    key: str | None = None
    bar: Bar | None = None


def table_rows(table: Table) -> Iterator[tuple[Cell, ...]]:
    """Return the cells of a table, row by row."""
    columns = map(_column_cells, table.columns)
    return zip(*columns, strict=True)


def score_cell(score: Score) -> Cell:
    """Return the cell of a score.

    The bar of a share covers 0 to 100%, and that of a difference is centered on 0. A number has no
    natural range and no bar.
    """
    (cell,) = _estimate_cells([score.estimate], score.unit)
    if score.unit == "share":
        return cell
    return cell._replace(bar=None)


def _column_cells(column: Column) -> list[Cell]:
    match column.kind:
        case "text":
            return [Cell(UNKNOWN if value is None else str(value)) for value in column.values]
        case "share_estimate":
            return _estimate_cells(_estimates(column.values), "share")
        case "number_estimate":
            return _estimate_cells(_estimates(column.values), "number")
        case "count" | "share" | "number":
            return _number_cells(column.values, column.kind)


def _estimates(values: Iterable[CellValue]) -> list[Estimate]:
    estimates = []
    for value in values:
        estimates.append(value if isinstance(value, Estimate) else Estimate(value=None))
    return estimates


def _number_cells(values: Iterable[CellValue], unit: Unit) -> list[Cell]:
    estimates = []
    for value in values:
        number = value if isinstance(value, int | float) else None
        estimates.append(Estimate(value=number))

    decimals = common_decimals(estimates, unit, digits=4)
    cells = []
    for estimate in estimates:
        text = format_number(estimate.value, unit, decimals)
        cells.append(Cell(text, key=_sort_key(estimate.value)))

    return cells


def _estimate_cells(estimates: list[Estimate], unit: Unit) -> list[Cell]:
    low, high = _bar_range(estimates, unit)
    signed = has_negative(estimates)
    decimals = common_decimals(estimates, unit, digits=3)
    cells = []

    for estimate in estimates:
        text = format_number(estimate.value, unit, decimals, signed)
        interval = format_interval(estimate, unit, decimals, signed)
        bar = _bar(estimate, low, high)
        cells.append(Cell(text, interval, _sort_key(estimate.value), bar))

    return cells


def _sort_key(value: float | None) -> str:
    return f"{value:.9g}" if is_known(value) else ""


def _bar_range(estimates: list[Estimate], unit: Unit) -> tuple[float, float]:
    """Return the values at the left and right end of the bars."""
    values = all_values(estimates)
    sizes = [abs(value) for value in values if abs(value) < float("inf")]
    largest = max(sizes, default=0) or 1
    if has_negative(estimates):
        return -largest, largest
    if unit == "share" and largest <= 1:
        return 0, 1
    return 0, largest


def _bar(estimate: Estimate, start: float, end: float) -> Bar | None:
    value = estimate.value
    if value is None or not is_known(value):
        return None

    low = estimate.low if estimate.low is not None else value
    high = estimate.high if estimate.high is not None else value
    positions = []
    for at in (value, low, high, 0.0):
        share = (at - start) / (end - start)
        position = 100 * min(max(share, 0), 1)
        positions.append(round(position, 1))

    return Bar(*positions)
