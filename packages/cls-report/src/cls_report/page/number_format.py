"""How the page writes figures: shares as percent, intervals in brackets, what is unknown as a dash."""

import math
from collections.abc import Iterable
from typing import Literal

from cls_report.page.blocks import Estimate

_DASH = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_PERCENT = "\N{NARROW NO-BREAK SPACE}%"
UNKNOWN = _DASH

Unit = Literal["share", "number", "count"]


def known(value: float | None) -> bool:
    """Whether there is a figure to show: neither None nor not-a-number."""
    return value is not None and not math.isnan(value)


def decimals(largest: float, digits: int = 4) -> int:
    """Return the decimals that give a figure of this size so many digits, four decimals at most."""
    if not math.isfinite(largest) or largest <= 0:
        return 4
    return min(max(digits - 1 - math.floor(math.log10(largest)), 0), 4)


def figure(value: float | None, unit: Unit, places: int | None = None, signed: bool = False) -> str:
    """Write a figure: `89.0 %`, `0.4312`, `1,234`; a dash for None and not-a-number."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if unit == "share":
        return _bare(value, unit, places, signed) + _PERCENT
    return _bare(value, unit, places, signed)


def interval(
    estimate: Estimate, unit: Unit, places: int | None = None, signed: bool = False
) -> str:
    """Write an interval: `(85.4-91.8)`, or `(-4.0 to +0.3)` where signs would blur the dash; empty where unknown."""
    if not (known(estimate.low) and known(estimate.high)):
        return ""
    low, high = (
        _bare(bound, unit, places, signed)
        for bound in (estimate.low, estimate.high)
        if bound is not None
    )
    return f"({low}{' to ' if signed else _DASH}{high})"


def is_difference(estimates: Iterable[Estimate]) -> bool:
    """Whether any figure or bound is below zero, so that all are written with their signs."""
    return any(
        value is not None and value < 0
        for each in estimates
        for value in (each.value, each.low, each.high)
    )


def common_places(estimates: Iterable[Estimate], unit: Unit, digits: int) -> int | None:
    """Return the decimals that figures and bounds share, by the largest of them; None where the unit says it."""
    if unit != "number":
        return None
    bounds = (value for each in estimates for value in (each.value, each.low, each.high))
    return decimals(max((abs(value) for value in bounds if value is not None), default=0), digits)


def _bare(value: float, unit: Unit, places: int | None, signed: bool) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    if unit == "share":
        value, places = 100 * value, 1
    elif unit == "count":
        places = 0
    elif places is None:
        places = decimals(abs(value))
    text = f"{value:+,.{places}f}" if signed and value else f"{value:,.{places}f}"
    if unit == "number" and value and float(text.replace(",", "")) == 0:
        text = f"{value:.1e}"  # too small for the places, yet not nothing
    return text.replace("-", _MINUS)
