"""Table cells: text, sort key, and interval bar."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cls_report.page.blocks import CellValue, Column, Score, Table
from cls_report.page.number_format import (
    UNKNOWN,
    Unit,
    common_decimals,
    format_interval,
    format_number,
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
    columns = [_column_cells(column) for column in table.columns]
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
    if column.kind == "text":
        cells = []
        for value in column.values:
            text = UNKNOWN if value is None else str(value)
            cells.append(Cell(text))
        return cells

    if column.kind == "share_estimate":
        unknown = Estimate(value=None)
        estimates = []
        for value in column.values:
            estimates.append(value if isinstance(value, Estimate) else unknown)
        return _estimate_cells(estimates, "share")

    return _number_cells(column.values, column.kind)


def _number_cells(values: Iterable[CellValue], unit: Unit) -> list[Cell]:
    numbers = [value if isinstance(value, int | float) else None for value in values]
    present = [number for number in numbers if number is not None]
    decimals = common_decimals(present, unit, digits=4)
    cells = []
    for number in numbers:
        text = format_number(number, unit, decimals)
        key = _sort_key(number)
        cells.append(Cell(text, key=key))
    return cells


def _estimate_cells(estimates: list[Estimate], unit: Unit) -> list[Cell]:
    values_and_bounds = []
    for estimate in estimates:
        for value in (estimate.value, estimate.low, estimate.high):
            if value is not None:
                values_and_bounds.append(value)

    start, end = _bar_range(values_and_bounds, unit)
    signed = start < 0
    decimals = common_decimals(values_and_bounds, unit, digits=3)

    cells = []
    for estimate in estimates:
        text = format_number(estimate.value, unit, decimals, signed)
        interval = format_interval(estimate, unit, decimals, signed)
        key = _sort_key(estimate.value)
        bar = _bar(estimate, start, end)
        cells.append(Cell(text, interval, key, bar))

    return cells


def _sort_key(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    return f"{value:.9g}"


def _bar_range(values: list[float], unit: Unit) -> tuple[float, float]:
    """Return the values at both ends of the bars. With negative values, 0 is in the middle."""
    sizes = [abs(value) for value in values if math.isfinite(value)]
    largest = max(sizes, default=0) or 1
    if any(value < 0 for value in values):
        return -largest, largest
    if unit == "share" and largest <= 1:
        return 0, 1
    return 0, largest


def _bar(estimate: Estimate, start: float, end: float) -> Bar | None:
    value = estimate.value
    if value is None or math.isnan(value):
        return None

    low = estimate.low
    if low is None:
        low = value
    high = estimate.high
    if high is None:
        high = value

    positions = []
    for at in (value, low, high, 0.0):
        share = (at - start) / (end - start)
        position = 100 * min(max(share, 0), 1)
        positions.append(round(position, 1))

    return Bar(*positions)
