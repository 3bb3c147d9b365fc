"""Number formatting: shares as percentages, intervals in parentheses, a dash for unknown values."""

import math
from collections.abc import Iterable
from typing import Literal

from cls_report.statistics.estimates import Estimate

UNKNOWN = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_MAX_DECIMALS = 4

Unit = Literal["share", "number", "count"]


def format_number(
    value: float | None, unit: Unit, decimals: int | None = None, signed: bool = False
) -> str:
    """Format a number, such as `89.0%`, `0.4312`, or `1,234`; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return UNKNOWN
    text = _format_without_unit(value, unit, decimals, signed)
    if unit == "share":
        return f"{text}%"
    return text


def format_interval(
    estimate: Estimate, unit: Unit, decimals: int | None = None, signed: bool = False
) -> str:
    """Format an interval, such as `(85.4-91.8)`, or `(-4.0 to +0.3)` if signed.

    The result is empty if a bound is unknown.
    """
    bounds = []
    for bound in (estimate.low, estimate.high):
        if bound is None or math.isnan(bound):
            return ""
        text = _format_without_unit(bound, unit, decimals, signed)
        bounds.append(text)

    separator = " to " if signed else "\N{EN DASH}"
    joined = separator.join(bounds)
    return f"({joined})"


def common_decimals(values: Iterable[float], unit: Unit, digits: int) -> int | None:
    """Return the decimals that give the largest value `digits` digits; None for a fixed unit."""
    if unit != "number":
        return None
    sizes = [abs(value) for value in values]
    largest = max(sizes, default=0)
    return _decimals(largest, digits)


def _decimals(largest: float, digits: int = 4) -> int:
    if not math.isfinite(largest) or largest <= 0:
        return _MAX_DECIMALS
    exponent = math.floor(math.log10(largest))
    decimals = digits - 1 - exponent
    return min(max(decimals, 0), _MAX_DECIMALS)


def _format_without_unit(value: float, unit: Unit, decimals: int | None, signed: bool) -> str:
    if math.isinf(value):
        if value > 0:
            return "∞"
        return f"{_MINUS}∞"

    if unit == "share":
        value = 100 * value
        decimals = 1
    elif unit == "count":
        decimals = 0
    elif decimals is None:
        decimals = _decimals(abs(value))

    sign = "+" if signed and value else ""
    text = f"{value:{sign},.{decimals}f}"
    if unit == "number" and value and float(text.replace(",", "")) == 0:
        text = f"{value:.1e}"  # it would be displayed as 0
    return text.replace("-", _MINUS)
