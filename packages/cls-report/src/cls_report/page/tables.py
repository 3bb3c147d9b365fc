"""Cells of the page's tables: text, sorting key, and where a small bar begins and ends."""

from collections.abc import Iterator
from typing import NamedTuple

from cls_report.page.blocks import Column, Estimate, Score, Table
from cls_report.page.number_format import (
    UNKNOWN,
    Unit,
    common_places,
    figure,
    interval,
    is_difference,
    known,
)


class Bar(NamedTuple):
    """An interval within a domain, in percent of its width; `zero` is where nothing lies, if within."""

    value: float
    low: float
    high: float
    zero: float


class Cell(NamedTuple):
    """What one cell shows.

    Attributes:
        text: the figure or the name.
        interval: its interval, in brackets; empty where there is none.
        key: what it is sorted by, empty where unknown; None for text, which is sorted by itself.
        bar: the interval drawn; None where there is nothing to draw.
    """

    text: str
    interval: str = ""
    key: str | None = None
    bar: Bar | None = None


def rows(table: Table) -> Iterator[tuple[Cell, ...]]:
    """Return the table's cells, row by row."""
    return zip(*(list(_cells(column)) for column in table.columns), strict=True)


def score_cell(score: Score) -> Cell:
    """Return what a score shows: a share with its bar, on 0 to 100 % or, for a difference, about zero.

    A number has no natural domain, and no bar.
    """
    cell = next(iter(_estimate_cells([score.estimate], score.unit)))
    return cell if score.unit == "share" else cell._replace(bar=None)


def _cells(column: Column) -> Iterator[Cell]:
    if column.kind == "text":
        return (Cell(UNKNOWN if value is None else str(value)) for value in column.values)
    if column.kind in ("share_estimate", "number_estimate"):
        estimates = [
            value if isinstance(value, Estimate) else Estimate(value=None)
            for value in column.values
        ]
        return _estimate_cells(estimates, "share" if column.kind == "share_estimate" else "number")
    unit: Unit = (
        "count" if column.kind == "count" else "share" if column.kind == "share" else "number"
    )
    return _figure_cells(
        [value if isinstance(value, int | float) else None for value in column.values], unit
    )


def _figure_cells(values: list[float | None], unit: Unit) -> Iterator[Cell]:
    places = common_places((Estimate(value=value) for value in values), unit, digits=4)
    for value in values:
        yield Cell(figure(value, unit, places), key=_key(value))


def _estimate_cells(estimates: list[Estimate], unit: Unit) -> Iterator[Cell]:
    domain, signed, places = (
        _domain(estimates, unit),
        is_difference(estimates),
        common_places(estimates, unit, digits=3),
    )
    for each in estimates:
        text, bounds = (
            figure(each.value, unit, places, signed),
            interval(each, unit, places, signed),
        )
        yield Cell(text, bounds, _key(each.value), _bar(each, domain))


def _key(value: float | None) -> str:
    return f"{value:.9g}" if value is not None and known(value) else ""


def _domain(estimates: list[Estimate], unit: Unit) -> tuple[float, float]:
    bounds = [
        value
        for each in estimates
        for value in (each.value, each.low, each.high)
        if value is not None
    ]
    largest = max((abs(value) for value in bounds if abs(value) < float("inf")), default=0) or 1
    if any(value < 0 for value in bounds):
        return -largest, largest
    return (0, 1) if unit == "share" and largest <= 1 else (0, largest)


def _bar(estimate: Estimate, domain: tuple[float, float]) -> Bar | None:
    if estimate.value is None or not known(estimate.value):
        return None
    low = estimate.low if estimate.low is not None else estimate.value
    high = estimate.high if estimate.high is not None else estimate.value
    start, width = domain[0], domain[1] - domain[0]
    places = (
        100 * min(max((value - start) / width, 0), 1) for value in (estimate.value, low, high, 0.0)
    )
    return Bar(*(round(place, 1) for place in places))
