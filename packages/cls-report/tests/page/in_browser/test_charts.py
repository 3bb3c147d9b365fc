import re
from collections.abc import Callable
from typing import Literal

from playwright.sync_api import Page

from cls_report.page.blocks import Chart, Series

DASH = "\N{EN DASH}"
LOSS = Chart(
    title="Loss",
    x_title="epoch",
    y_title="loss",
    x_unit="count",
    series=(
        Series(name="train", x=(0, 1, 2, 3), y=(2.0, 1.5, 1.0, 0.5)),
        Series(
            name="valid",
            x=(0, 1, 2, 3),
            y=(2.0, None, 1.25, 1.0),
            low=(1, None, 1, 0.5),
            high=(3, None, 2, 1.5),
        ),
        Series(name="floor", x=(0, 3), y=(0.25, 0.25), style="dashed"),
    ),
)


def open_chart(open_blocks: Callable[..., Page], chart: Chart = LOSS) -> Page:
    page = open_blocks(chart)
    page.wait_for_selector(".plot svg .axes")
    return page


def test_lines_are_interrupted_at_gaps(open_blocks: Callable[..., Page]) -> None:
    page = open_chart(open_blocks)
    pieces = [path.get_attribute("d") or "" for path in page.locator(".plot path.line").all()]
    assert [d.count("M") for d in pieces] == [1, 2, 1]


def test_arrow_keys_read_values(open_blocks: Callable[..., Page]) -> None:
    page = open_chart(open_blocks)
    plot = page.get_by_role("slider")
    plot.press("Home")
    assert (
        plot.get_attribute("aria-valuetext")
        == "epoch 0: train 2, valid 2 (1\N{EN DASH}3), floor 0.25"
    )
    plot.press("ArrowRight")
    assert plot.get_attribute("aria-valuetext") == "epoch 1: train 1.5, floor 0.25"
    plot.press("End")
    assert (plot.get_attribute("aria-valuetext") or "").startswith("epoch 3: train 0.5")
    plot.press("Escape")
    assert not page.locator(".readout").is_visible()


def test_hovering_displays_values(open_blocks: Callable[..., Page]) -> None:
    page = open_chart(open_blocks)
    width = page.locator(".plot").evaluate("(plot) => plot.clientWidth")
    page.locator(".plot").hover(position={"x": width - 30, "y": 60})
    assert re.split(r"\s*\n\s*", page.locator(".readout").inner_text())[:3] == [
        "epoch 3",
        "train",
        "0.5",
    ]


def test_legend_hides_and_shows_lines(open_blocks: Callable[..., Page]) -> None:
    page = open_chart(open_blocks)
    button = page.get_by_role("button", name="train")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert page.locator(".plot path.line").count() == 2
    page.get_by_role("button", name="valid").click()
    page.get_by_role("button", name="floor").click()
    assert page.locator(".plot path.line").count() == 0
    button.click()
    assert page.locator(".plot path.line").count() == 1


def test_values_are_available_as_a_table(open_blocks: Callable[..., Page]) -> None:
    page = open_chart(open_blocks)
    page.get_by_text("Show values as a table").click()
    page.wait_for_selector(".values tbody tr")  # built when the details element opens
    rows = [re.split(r"\s+", row) for row in page.locator(".values tbody tr").all_inner_texts()]
    assert rows[1] == ["1", "1.5", DASH, DASH]
    assert rows[3] == ["3", "0.5", "1", "(0.5\N{EN DASH}1.5)", "0.25"]


UNITS: tuple[Literal["share", "number"], ...] = ("share", "number")
EMPTY = Series(name="", x=(), y=())
SINGLE = Series(name="one", x=(5,), y=(0.125,))
ABSENT = Series(name="unknown", x=(1, 2), y=(None, float("nan")))
HUGE = Series(name="huge", x=(0, 1e12), y=(-1e12, float("inf")))
SMALL = Series(name="small", x=(1, 2, 3), y=(1e-9, 2e-9, 3e-9))
SAME = Series(name="same", x=(1, 2, 3), y=(7, 7, 7), style="points")

UNUSUAL = [(), (EMPTY,), (SINGLE,), (ABSENT,), (HUGE,), (SMALL,), (SAME,), (SINGLE, SAME, HUGE)]


def test_unusual_values_are_drawn_without_errors(open_blocks: Callable[..., Page]) -> None:
    charts = [
        Chart(title="Unusual", x_title="x", y_title="y", y_unit=unit, series=series)
        for unit in UNITS
        for series in UNUSUAL
    ]
    page = open_blocks(*charts)
    for block in page.locator(".chart").all():
        block.scroll_into_view_if_needed()
        block.locator(".axes").wait_for(state="attached")
        block.get_by_role("slider").press("Home")
        block.get_by_text("Show values as a table").click()
        assert "NaN" not in block.inner_html()
        assert 2 <= block.locator(".axes text").count() <= 40
