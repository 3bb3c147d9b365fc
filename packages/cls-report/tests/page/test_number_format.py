import math

import pytest

from cls_report.page.blocks import Column, Score, Table
from cls_report.page.number_format import UNKNOWN, format_interval, format_number
from cls_report.page.tables import score_cell, table_rows
from cls_report.statistics.estimates import Estimate

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.89, "share", "89.0%"),
        (1.0, "share", "100.0%"),
        (-0.021, "share", f"{MINUS}2.1%"),
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
def test_numbers_are_formatted_by_their_unit(value: float | None, unit: str, text: str) -> None:
    assert format_number(value, unit) == text  # type: ignore[arg-type]


def test_intervals_are_in_parentheses_and_signed_ones_use_a_word_as_separator() -> None:
    assert (
        format_interval(Estimate(value=0.89, low=0.854, high=0.918), "share") == f"(85.4{DASH}91.8)"
    )
    assert (
        format_interval(Estimate(value=0, low=-0.04, high=0.003), "share", signed=True)
        == f"({MINUS}4.0 to +0.3)"
    )
    assert format_interval(Estimate(value=0.5), "share") == ""


def test_numbers_of_a_column_have_the_same_decimals() -> None:
    table = Table(
        title="t", columns=(Column(title="loss", kind="number", values=(0.25, 12.5, None)),)
    )
    assert [cell.text for (cell,) in table_rows(table)] == ["0.25", "12.50", UNKNOWN]


def test_bar_of_a_share_covers_0_to_100_percent_and_that_of_a_difference_is_centered_on_0() -> None:
    share = score_cell(
        Score(title="top-1", estimate=Estimate(value=0.5, low=0.4, high=0.6), unit="share")
    )
    assert share.bar == (50, 40, 60, 0)
    change = score_cell(
        Score(title="change", estimate=Estimate(value=0.01, low=-0.02, high=0.04), unit="share")
    )
    assert change.bar == (62.5, 25, 100, 50)
    assert change.text == "+1.0%"
    number = score_cell(
        Score(title="loss", estimate=Estimate(value=0.5, low=0.4, high=0.6), unit="number")
    )
    assert number.bar is None


def test_unknown_values_have_neither_sort_key_nor_bar() -> None:
    table = Table(
        title="t",
        columns=(Column(title="recall", kind="share_estimate", values=(Estimate(value=None),)),),
    )
    assert [cell for (cell,) in table_rows(table)] == [(UNKNOWN, "", "", None)]
