from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from cls_report.page.blocks import Column, Table
from cls_report.page.number_format import UNKNOWN
from cls_report.statistics.estimates import Estimate

TABLE = Table(
    title="Per class",
    columns=(
        Column(title="class", kind="text", values=("b", "10", "2", "a")),
        Column(title="images", kind="count", values=(1200, 3, 20, None)),
        Column(
            title="recall",
            kind="share_estimate",
            values=(
                Estimate(value=0.5, low=0.4, high=0.6),
                Estimate(value=None),
                Estimate(value=0.25),
                None,
            ),
        ),
    ),
)


def column(page: Page, position: int) -> list[str]:
    return page.locator(f"tbody tr > :nth-child({position})").all_inner_texts()


def sort_directions(page: Page) -> list[str | None]:
    return [header.get_attribute("aria-sort") for header in page.locator("thead th").all()]


@pytest.mark.parametrize("by_keyboard", [False, True])
def test_header_sorts_its_column_in_both_directions_with_unknown_values_last(
    open_blocks: Callable[..., Page], by_keyboard: bool
) -> None:
    page = open_blocks(TABLE)
    button = page.get_by_role("button", name="images")

    def press() -> None:
        button.press("Enter") if by_keyboard else button.click()

    press()
    assert column(page, 2) == ["3", "20", "1,200", UNKNOWN]
    assert sort_directions(page) == ["none", "ascending", "none"]
    press()
    assert column(page, 2) == ["1,200", "20", "3", UNKNOWN]
    assert sort_directions(page) == ["none", "descending", "none"]


def test_names_are_sorted_naturally_and_estimates_by_their_value(
    open_blocks: Callable[..., Page],
) -> None:
    page = open_blocks(TABLE)
    page.get_by_role("button", name="class").click()
    assert column(page, 1) == ["2", "10", "a", "b"]
    page.get_by_role("button", name="recall").click()
    assert [text.split()[0] for text in column(page, 3)] == ["25.0%", "50.0%", UNKNOWN, UNKNOWN]
    assert sort_directions(page) == ["none", "none", "ascending"]


def test_estimates_are_displayed_with_their_interval(open_blocks: Callable[..., Page]) -> None:
    page = open_blocks(TABLE)
    assert page.locator("td").nth(1).inner_text().split() == ["50.0%", "(40.0\N{EN DASH}60.0)"]


def test_long_table_displays_all_rows_on_demand(
    open_blocks: Callable[..., Page],
) -> None:
    names = tuple(f"class {index}" for index in range(1000))
    table = Table(title="Long", columns=(Column(title="class", kind="text", values=names),))
    page = open_blocks(table)
    assert page.locator("tbody tr").count() == 100
    page.get_by_role("button", name="Show all 1,000 rows").click()
    assert page.locator("tbody tr").count() == 1000


def test_filter_displays_and_counts_the_matching_rows(
    open_blocks: Callable[..., Page],
) -> None:
    names = tuple(f"Class {index}" for index in range(1000))
    page = open_blocks(
        Table(title="Long", columns=(Column(title="class", kind="text", values=names),))
    )
    page.get_by_role("searchbox").fill("class 99")
    assert column(page, 1) == ["Class 99", *(f"Class {index}" for index in range(990, 1000))]
    assert page.get_by_role("status").inner_text() == "11 of 1,000 rows"
