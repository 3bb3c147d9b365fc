import math

import pytest

from cls_report.page.blocks import Column, Estimate, Score, Table
from cls_report.page.number_format import UNKNOWN, figure, interval
from cls_report.page.tables import rows, score_cell

DASH, MINUS, SPACE = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{NARROW NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.89, "share", f"89.0{SPACE}%"),
        (1.0, "share", f"100.0{SPACE}%"),
        (-0.021, "share", f"{MINUS}2.1{SPACE}%"),
        (0.43124, "number", "0.4312"),
        (12.3456, "number", "12.35"),
        (1234.5, "number", "1,234"),
        (0.0, "number", "0.0000"),
        (2e-5, "number", f"2.0e{MINUS}05"),
        (1234567, "count", "1,234,567"),
        (math.inf, "number", "∞"),
        (math.nan, "share", UNKNOWN),
        (None, "count", UNKNOWN),
    ],
)
def test_a_figure_is_written_by_its_unit(value: float | None, unit: str, text: str) -> None:
    assert figure(value, unit) == text  # type: ignore[arg-type]


def test_an_interval_stands_in_brackets_and_signs_do_not_blur_its_dash() -> None:
    assert interval(Estimate(value=0.89, low=0.854, high=0.918), "share") == f"(85.4{DASH}91.8)"
    assert (
        interval(Estimate(value=0, low=-0.04, high=0.003), "share", signed=True)
        == f"({MINUS}4.0 to +0.3)"
    )
    assert interval(Estimate(value=0.5), "share") == ""


def test_figures_of_a_column_have_equally_many_decimals() -> None:
    table = Table(
        title="t", columns=(Column(title="loss", kind="number", values=(0.25, 12.5, None)),)
    )
    assert [cell.text for (cell,) in rows(table)] == ["0.25", "12.50", UNKNOWN]


def test_a_share_is_drawn_on_the_whole_range_and_a_difference_about_zero() -> None:
    share = score_cell(
        Score(title="top-1", estimate=Estimate(value=0.5, low=0.4, high=0.6), unit="share")
    )
    assert share.bar == (50, 40, 60, 0)
    change = score_cell(
        Score(title="change", estimate=Estimate(value=0.01, low=-0.02, high=0.04), unit="share")
    )
    assert change.bar == (62.5, 25, 100, 50)
    assert change.text == f"+1.0{SPACE}%"
    number = score_cell(
        Score(title="loss", estimate=Estimate(value=0.5, low=0.4, high=0.6), unit="number")
    )
    assert number.bar is None


def test_what_is_unknown_has_neither_key_nor_bar() -> None:
    table = Table(
        title="t",
        columns=(Column(title="recall", kind="share_estimate", values=(Estimate(value=None),)),),
    )
    assert [cell for (cell,) in rows(table)] == [(UNKNOWN, "", "", None)]
