from collections import Counter
from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from cls_report.page.blocks import Confusion, Report


def of(report: Report) -> Confusion:
    return next(
        block
        for section in report.sections
        for block in section.blocks
        if block.block == "confusion"
    )


def images_of(confusion: Confusion, truth: int, answer: int) -> list[int]:
    pairs = zip(confusion.truth, confusion.answer, strict=True)
    found = [index for index, pair in enumerate(pairs) if pair == (truth, answer)]
    return sorted(found, key=lambda index: -confusion.confidence[index])


def shown(page: Page) -> Page:
    page.locator(".confusion").scroll_into_view_if_needed()
    page.wait_for_selector(".matrix canvas")
    return page


def cell_at(page: Page, row: int, column: int) -> dict[str, float]:
    """Where a cell of the matrix is drawn, by what the page itself says of its sizes."""
    sizes = page.evaluate("""() => {
        const box = document.querySelector(".matrix");
        const side = document.querySelector(".spacer").clientWidth;
        return { side, count: Number(box.getAttribute("aria-rowcount")), gutter: Number(box.dataset.gutter) };
    }""")
    cell = (sizes["side"] - sizes["gutter"]) / sizes["count"]
    return {"x": sizes["gutter"] + (column + 0.5) * cell, "y": sizes["gutter"] + (row + 0.5) * cell}


@pytest.mark.parametrize("largest", [0, 1, 7])
def test_a_click_on_a_cell_shows_its_images_and_no_others(
    open_page: Callable[..., Page], rich_report: Report, largest: int
) -> None:
    confusion = of(rich_report)
    wrong = [
        pair for pair in zip(confusion.truth, confusion.answer, strict=True) if pair[0] != pair[1]
    ]
    (truth, answer), count = Counter(wrong).most_common()[largest]
    page = shown(open_page(rich_report))
    page.locator(".matrix").click(position=cell_at(page, truth, answer))  # type: ignore[arg-type]
    expected = images_of(confusion, truth, answer)
    assert len(expected) == count
    assert page.locator(".crops .name").all_text_contents() == [
        confusion.names[index] for index in expected
    ]
    sources = page.locator(".crops img").evaluate_all(
        "(images) => images.map((image) => image.src)"
    )
    assert sources == [rich_report.pictures[confusion.pictures[index]] for index in expected]
    sure = [f"{confusion.confidence[index] / 10:.1f}\u202f% sure" for index in expected]
    assert page.locator(".crops .sure").all_text_contents() == sure
    names = [confusion.classes[place] or "(empty)" for place in (truth, answer)]
    assert page.locator(".behind h4").inner_text() == f"Truth {names[0]}, answered {names[1]}"


def test_arrow_keys_walk_over_the_cells_and_enter_opens_one(
    open_page: Callable[..., Page], make: Callable[..., Report]
) -> None:
    report = make(("cat", "dog", "owl"), images=60, pictured=60)
    page = shown(open_page(report))
    matrix = page.locator(".matrix")
    matrix.focus()
    matrix.press("ArrowDown")
    matrix.press("ArrowRight")
    matrix.press("ArrowRight")
    matrix.press("ArrowLeft")
    cell = page.get_by_role("gridcell")
    assert cell.get_attribute("aria-colindex") == "2"
    assert cell.inner_text().startswith("Truth dog, answered dog")
    assert matrix.get_attribute("aria-activedescendant") == cell.get_attribute("id")
    matrix.press("Enter")
    expected = images_of(of(report), 1, 1)
    assert len(expected) == 17
    assert page.locator(".crops li").count() == 12
    page.get_by_role("button", name="Show more (5 left)").press("Enter")
    assert page.locator(".crops li").count() == 17
    focused = page.evaluate(
        "document.activeElement.closest('li').querySelector('.name').textContent"
    )
    assert focused == page.locator(".crops .name").nth(12).text_content()
    assert (
        f"{len(expected)} images"
        in page.locator(".confusion > .place > [role=status]").inner_text()
    )


def test_shift_and_an_arrow_lead_to_the_next_cell_that_holds_images(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    confusion = of(rich_report)
    page = shown(open_page(rich_report))
    page.locator(".matrix").focus()
    page.locator(".matrix").press("Shift+ArrowRight")
    answers = [
        answer
        for truth, answer in zip(confusion.truth, confusion.answer, strict=True)
        if truth == 0 < answer
    ]
    assert page.get_by_role("gridcell").get_attribute("aria-colindex") == str(min(answers) + 1)


def test_the_largest_confusions_open_their_images(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = shown(open_page(rich_report))
    first = page.locator(".largest button").first
    first.click()
    assert first.get_attribute("aria-pressed") == "true"
    assert page.locator(".crops li").count() == int(first.locator(".count").inner_text())


def test_images_without_a_picture_are_counted_and_named(
    open_page: Callable[..., Page], make: Callable[..., Report]
) -> None:
    report = make(("cat", "dog"), images=40, pictured=5)
    confusion = of(report)
    page = shown(open_page(report))
    page.locator(".matrix").click(position=cell_at(page, 0, 0))  # type: ignore[arg-type]
    absent = [index for index in images_of(confusion, 0, 0) if confusion.pictures[index] < 0]
    page.get_by_text(f"{len(absent)} without a picture in this file", exact=True).click()
    names = page.locator(".absent li bdi").all_text_contents()
    assert sorted(names) == sorted(confusion.names[index] for index in absent)


def test_of_a_thousand_classes_those_of_the_largest_confusions_are_shown_first(
    open_page: Callable[..., Page], make: Callable[..., Report]
) -> None:
    classes = tuple(f"class {index}" for index in range(1000))
    page = shown(open_page(make(classes, images=3000, pictured=10)))
    matrix = page.locator(".matrix")
    assert int(matrix.get_attribute("aria-rowcount") or 0) <= 25
    assert "mistakes lie among them" in page.locator(".confusion .said").inner_text()
    page.get_by_role("combobox").select_option("all")
    assert matrix.get_attribute("aria-rowcount") == "1000"
    page.get_by_role("button", name="Zoom in").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_a_finger_finds_the_cell_beside_it_that_holds_images(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = shown(open_page(rich_report, 390, has_touch=True))
    page.get_by_role("combobox").select_option("all")
    place = cell_at(page, 2, 2)
    page.locator(".matrix").tap(position={"x": place["x"] + 5, "y": place["y"]})
    assert page.locator(".behind h4").inner_text() == "Truth 00, answered 00"


@pytest.mark.parametrize("classes", [("alone",), ("cat", "dog")])
def test_one_or_two_classes_are_a_matrix_too(
    open_page: Callable[..., Page], make: Callable[..., Report], classes: tuple[str, ...]
) -> None:
    page = shown(open_page(make(classes, images=30, pictured=30)))
    page.locator(".matrix").click(position=cell_at(page, 0, 0))  # type: ignore[arg-type]
    assert page.locator(".crops li").count() > 0


def test_a_confusion_of_no_image_says_so(
    open_page: Callable[..., Page], make: Callable[..., Report]
) -> None:
    report = make(("cat", "dog"), images=30, pictured=30)
    empty = {"truth": (), "answer": (), "confidence": (), "names": (), "pictures": ()}
    section = report.sections[2].model_copy(
        update={"blocks": (of(report).model_copy(update=empty),)}
    )
    page = shown(open_page(report.model_copy(update={"sections": (section,)})))
    assert "0 of 0 images right; no mistake." in page.locator(".summary").inner_text()
