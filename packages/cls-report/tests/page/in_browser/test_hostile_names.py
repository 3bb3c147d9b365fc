from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from cls_report.page.blocks import (
    Chart,
    Code,
    Column,
    ConfusionMatrix,
    Facts,
    Gallery,
    GalleryItem,
    Report,
    Score,
    Scores,
    Section,
    Series,
    Table,
    Text,
)
from cls_report.statistics.estimates import Estimate

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
    indices = tuple(range(size))
    items = tuple(
        GalleryItem(image=0, overlay=1, title=name, lines=(name, name), is_wrong=True)
        for name in NAMES
    )
    series = tuple(
        Series(name=name, x=(0, 1), y=(index, index + 1)) for index, name in enumerate(NAMES)
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
        Gallery(title=NAMES[4], items=items, note=NAMES[4]),
        ConfusionMatrix(
            title=NAMES[1],
            classes=NAMES,
            labels=indices * 2,
            predicted=indices + indices[1:] + indices[:1],
            confidence=(500,) * 2 * size,
            names=NAMES * 2,
            images=(*indices, *(-1 for _ in indices)),
            note=NAMES[1],
        ),
    )
    sections = tuple(Section(key=name or "empty", title=name, blocks=blocks[:1]) for name in NAMES)
    sections += (Section(key="all", title="All", blocks=blocks),)
    return Report(
        title=NAMES[1] + NAMES[11],
        subtitle=NAMES[0],
        sections=sections,
        images=rich_report.images[:size],
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_names_are_displayed_as_plain_text(
    open_page: Callable[..., Page], hostile_report: Report, width: int
) -> None:
    page = open_page(hostile_report, width)
    for block in page.locator(".block").all():
        block.scroll_into_view_if_needed()
        page.wait_for_timeout(20)
    page.get_by_text("Show values as a table").click()
    page.get_by_role("slider").press("End")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_role("slider").press("Home")
    page.wait_for_selector(".matrix canvas")
    for button in page.locator(".top-confusions button").all():
        button.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("script:not([type])").count() == 2
    assert page.locator(".gallery .title bdi").all_text_contents() == [
        name for name in NAMES if name.strip()
    ]
    assert page.locator("svg[onload], img[onerror], [onclick]").count() == 0
    assert page.locator("h1").text_content() == hostile_report.title


def test_cell_names_are_complete_for_screen_readers(
    open_page: Callable[..., Page], hostile_report: Report
) -> None:
    page = open_page(hostile_report)
    page.locator(".confusion-matrix").scroll_into_view_if_needed()
    matrix = page.locator(".matrix")
    matrix.focus()
    for name in NAMES:
        text = page.get_by_role("gridcell").text_content() or ""
        visible = name if name.strip() else "(blank)" if name else "(empty)"
        assert text.startswith(f"Label {visible}, predicted {NAMES[0]}")
        matrix.press("ArrowDown")
