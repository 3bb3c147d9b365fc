from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from cls_report.page.blocks import (
    Chart,
    Code,
    Column,
    Confusion,
    Estimate,
    Facts,
    Gallery,
    Report,
    Score,
    Scores,
    Section,
    Series,
    Shown,
    Table,
    Text,
)

NAMES = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(3)>",
    "\"'><svg onload=alert(4)>",
    "{{ 7 * 7 }} {% raw %} ${alert(5)} `",
    "javascript:alert(6)",
    "&lt;b&gt; &amp; \\u003c",
    "👩‍👩‍👧‍👦 🏳️‍🌈 ٤٢",
    "שלום, עולם",
    "\u202eevil.gpj\u202c",
    "x" * 200,
    "two words " * 20,
    "line\nbreak\ttab",
    "__proto__",
    "",
    " ",
)


@pytest.fixture
def hostile_report(rich_report: Report) -> Report:
    size = len(NAMES)
    ones = tuple(range(size))
    shown = tuple(
        Shown(picture=0, overlay=1, title=name, lines=(name, name), wrong=True) for name in NAMES
    )
    series = tuple(
        Series(name=name, x=(0, 1), y=(place, place + 1)) for place, name in enumerate(NAMES)
    )
    scores = tuple(
        Score(title=name, estimate=Estimate(value=1), unit="number", note=name) for name in NAMES
    )
    columns = tuple(Column(title=name, kind="text", values=NAMES) for name in NAMES)
    blocks = (
        *(Text(text=name) for name in NAMES),
        Facts(facts={name: name for name in NAMES}),
        *(Code(title=name, text=name) for name in NAMES),
        Scores(title=NAMES[0], scores=scores),
        Table(title=NAMES[1], note=NAMES[2], columns=columns),
        Chart(title=NAMES[3], x_title=NAMES[11], y_title=NAMES[1], series=series, note=NAMES[4]),
        Gallery(title=NAMES[4], shown=shown, note=NAMES[4]),
        Confusion(
            title=NAMES[1],
            classes=NAMES,
            truth=ones * 2,
            answer=ones + ones[1:] + ones[:1],
            confidence=(500,) * 2 * size,
            names=NAMES * 2,
            pictures=(*ones, *(-1 for _ in ones)),
            note=NAMES[1],
        ),
    )
    sections = tuple(Section(key=name or "empty", title=name, blocks=blocks[:1]) for name in NAMES)
    sections += (Section(key="all", title="All", blocks=blocks),)
    return Report(
        title=NAMES[1] + NAMES[11],
        subtitle=NAMES[0],
        sections=sections,
        pictures=rich_report.pictures[:size],
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_names_are_shown_as_they_are_and_nothing_in_them_is_obeyed(
    open_page: Callable[..., Page], hostile_report: Report, width: int
) -> None:
    page = open_page(hostile_report, width)
    for block in page.locator(".block").all():
        block.scroll_into_view_if_needed()
        page.wait_for_timeout(20)
    page.get_by_text("Values as a table").click()
    page.get_by_role("slider").press("End")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_role("slider").press("Home")
    page.wait_for_selector(".matrix canvas")
    for button in page.locator(".largest button").all():
        button.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("script:not([type])").count() == 2
    assert page.locator(".gallery .title bdi").all_text_contents() == [
        name for name in NAMES if name.strip()
    ]
    assert page.locator("svg[onload], img[onerror], [onclick]").count() == 0
    assert page.locator("h1").text_content() == hostile_report.title


def test_the_name_of_each_cell_is_whole_for_a_screen_reader(
    open_page: Callable[..., Page], hostile_report: Report
) -> None:
    page = open_page(hostile_report)
    page.locator(".confusion").scroll_into_view_if_needed()
    matrix = page.locator(".matrix")
    matrix.focus()
    for place, name in enumerate(NAMES):
        text = page.get_by_role("gridcell").text_content() or ""
        shown = name if name.strip() else "(blank)" if name else "(empty)"
        assert text.startswith(f"Truth {shown}, answered {NAMES[0]}"), place
        matrix.press("ArrowDown")
