from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from cls_report.page.blocks import Column, Estimate, Table
from cls_report.page.number_format import UNKNOWN

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


def column(page: Page, place: int) -> list[str]:
    return page.locator(f"tbody tr > :nth-child({place})").all_inner_texts()


def sorts(page: Page) -> list[str | None]:
    return [head.get_attribute("aria-sort") for head in page.locator("thead th").all()]


@pytest.mark.parametrize("by_keyboard", [False, True])
def test_a_head_sorts_its_column_up_then_down_and_unknowns_stay_last(
    open_blocks: Callable[..., Page], by_keyboard: bool
) -> None:
    page = open_blocks(TABLE)
    button = page.get_by_role("button", name="images")

    def press() -> None:
        button.press("Enter") if by_keyboard else button.click()

    press()
    assert column(page, 2) == ["3", "20", "1,200", UNKNOWN]
    assert sorts(page) == ["none", "ascending", "none"]
    press()
    assert column(page, 2) == ["1,200", "20", "3", UNKNOWN]
    assert sorts(page) == ["none", "descending", "none"]


def test_names_are_sorted_as_people_count_and_estimates_by_their_value(
    open_blocks: Callable[..., Page],
) -> None:
    page = open_blocks(TABLE)
    page.get_by_role("button", name="class").click()
    assert column(page, 1) == ["2", "10", "a", "b"]
    page.get_by_role("button", name="recall").click()
    assert [text.split()[0] for text in column(page, 3)] == ["25.0", "50.0", UNKNOWN, UNKNOWN]
    assert sorts(page) == ["none", "none", "ascending"]


def test_an_estimate_is_written_with_its_interval(open_blocks: Callable[..., Page]) -> None:
    page = open_blocks(TABLE)
    assert page.locator("td").nth(1).inner_text().split() == ["50.0", "%", "(40.0\N{EN DASH}60.0)"]


def test_a_long_table_shows_its_first_rows_and_all_on_demand(
    open_blocks: Callable[..., Page],
) -> None:
    names = tuple(f"class {index}" for index in range(1000))
    table = Table(title="Long", columns=(Column(title="class", kind="text", values=names),))
    page = open_blocks(table)
    assert page.locator("tbody tr").count() == 100
    page.get_by_role("button", name="Show all 1,000 rows").click()
    assert page.locator("tbody tr").count() == 1000


def test_a_filter_leaves_the_rows_that_hold_its_word_and_counts_them(
    open_blocks: Callable[..., Page],
) -> None:
    names = tuple(f"Class {index}" for index in range(1000))
    page = open_blocks(
        Table(title="Long", columns=(Column(title="class", kind="text", values=names),))
    )
    page.get_by_role("searchbox").fill("class 99")
    assert column(page, 1) == ["Class 99", *(f"Class {index}" for index in range(990, 1000))]
    assert page.get_by_role("status").inner_text() == "11 of 1,000 rows"
