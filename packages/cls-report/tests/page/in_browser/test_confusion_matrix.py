from collections import Counter
from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from cls_report.page.blocks import ConfusionMatrix, Report


def matrix_of(report: Report) -> ConfusionMatrix:
    for section in report.sections:
        for block in section.blocks:
            if block.block == "confusion_matrix":
                return block
    raise AssertionError("the report has no confusion matrix")


def images_of(matrix: ConfusionMatrix, label: int, predicted: int) -> list[int]:
    """Return the images of a cell, most confident first."""
    pairs = zip(matrix.labels, matrix.predicted, strict=True)
    images = [index for index, pair in enumerate(pairs) if pair == (label, predicted)]
    return sorted(images, key=lambda index: -matrix.confidence[index])


def scrolled_to_matrix(page: Page) -> Page:
    page.locator(".confusion-matrix").scroll_into_view_if_needed()
    page.wait_for_selector(".matrix canvas")
    return page


def cell_at(page: Page, row: int, column: int) -> dict[str, float]:
    """Return the position of a cell, from the sizes that the page reports."""
    sizes = page.evaluate("""() => {
        const box = document.querySelector(".matrix");
        const side = document.querySelector(".spacer").clientWidth;
        const count = Number(box.getAttribute("aria-rowcount"));
        return { side, count, gutter: Number(box.dataset.gutter) };
    }""")
    cell = (sizes["side"] - sizes["gutter"]) / sizes["count"]
    return {"x": sizes["gutter"] + (column + 0.5) * cell, "y": sizes["gutter"] + (row + 0.5) * cell}


@pytest.mark.parametrize("rank", [0, 1, 7])
def test_click_on_a_cell_displays_exactly_its_images(
    open_page: Callable[..., Page], rich_report: Report, rank: int
) -> None:
    matrix = matrix_of(rich_report)
    pairs = zip(matrix.labels, matrix.predicted, strict=True)
    wrong = [pair for pair in pairs if pair[0] != pair[1]]
    (label, predicted), count = Counter(wrong).most_common()[rank]
    page = scrolled_to_matrix(open_page(rich_report))
    page.locator(".matrix").click(position=cell_at(page, label, predicted))  # type: ignore[arg-type]
    expected = images_of(matrix, label, predicted)
    assert len(expected) == count
    names = page.locator(".thumbnails .name").all_text_contents()
    assert names == [matrix.names[index] for index in expected]
    sources = page.locator(".thumbnails img").evaluate_all(
        "(images) => images.map((image) => image.src)"
    )
    assert sources == [rich_report.images[matrix.images[index]] for index in expected]
    confidence = [f"confidence {matrix.confidence[index] / 10:.1f}%" for index in expected]
    assert page.locator(".thumbnails .confidence").all_text_contents() == confidence
    label_name, predicted_name = matrix.classes[label], matrix.classes[predicted]
    heading = page.locator(".cell-images h4").inner_text()
    assert heading == f"Label {label_name or '(empty)'}, predicted {predicted_name or '(empty)'}"


def test_arrow_keys_select_a_cell_and_enter_opens_it(
    open_page: Callable[..., Page], make: Callable[..., Report]
) -> None:
    report = make(("cat", "dog", "owl"), images=60, included=60)
    page = scrolled_to_matrix(open_page(report))
    matrix = page.locator(".matrix")
    matrix.focus()
    matrix.press("ArrowDown")
    matrix.press("ArrowRight")
    matrix.press("ArrowRight")
    matrix.press("ArrowLeft")
    cell = page.get_by_role("gridcell")
    assert cell.get_attribute("aria-colindex") == "2"
    assert cell.inner_text().startswith("Label dog, predicted dog")
    assert matrix.get_attribute("aria-activedescendant") == cell.get_attribute("id")
    matrix.press("Enter")
    expected = images_of(matrix_of(report), 1, 1)
    assert len(expected) == 17
    assert page.locator(".thumbnails li").count() == 12
    page.get_by_role("button", name="Show more (5 remaining)").press("Enter")
    assert page.locator(".thumbnails li").count() == 17
    focused = page.evaluate(
        "document.activeElement.closest('li').querySelector('.name').textContent"
    )
    assert focused == page.locator(".thumbnails .name").nth(12).text_content()
    status = page.locator(".confusion-matrix > .block-body > [role=status]").inner_text()
    assert f"{len(expected)} images" in status


def test_shift_and_an_arrow_key_select_the_next_cell_with_images(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    matrix = matrix_of(rich_report)
    page = scrolled_to_matrix(open_page(rich_report))
    page.locator(".matrix").focus()
    page.locator(".matrix").press("Shift+ArrowRight")
    pairs = zip(matrix.labels, matrix.predicted, strict=True)
    first = min(predicted for label, predicted in pairs if label == 0 < predicted)
    assert page.get_by_role("gridcell").get_attribute("aria-colindex") == str(first + 1)


def test_click_on_a_top_confusion_displays_its_images(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = scrolled_to_matrix(open_page(rich_report))
    first = page.locator(".top-confusions button").first
    first.click()
    assert first.get_attribute("aria-pressed") == "true"
    assert page.locator(".thumbnails li").count() == int(first.locator(".count").inner_text())


def test_images_that_are_not_included_are_counted_and_listed(
    open_page: Callable[..., Page], make: Callable[..., Report]
) -> None:
    report = make(("cat", "dog"), images=40, included=5)
    matrix = matrix_of(report)
    page = scrolled_to_matrix(open_page(report))
    page.locator(".matrix").click(position=cell_at(page, 0, 0))  # type: ignore[arg-type]
    missing = [index for index in images_of(matrix, 0, 0) if matrix.images[index] < 0]
    page.get_by_text(f"{len(missing)} not included in this page", exact=True).click()
    names = page.locator(".missing-images li bdi").all_text_contents()
    assert sorted(names) == sorted(matrix.names[index] for index in missing)


def test_matrix_of_a_thousand_classes_starts_with_the_most_confused_ones(
    open_page: Callable[..., Page], make: Callable[..., Report]
) -> None:
    classes = tuple(f"class {index}" for index in range(1000))
    page = scrolled_to_matrix(open_page(make(classes, images=3000, included=10)))
    matrix = page.locator(".matrix")
    assert int(matrix.get_attribute("aria-rowcount") or 0) <= 25
    assert "mistakes are between them" in page.locator(".confusion-matrix .status").inner_text()
    page.get_by_role("combobox").select_option("all")
    assert matrix.get_attribute("aria-rowcount") == "1000"
    page.get_by_role("button", name="Zoom in").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_touch_opens_a_nearby_cell_with_images(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = scrolled_to_matrix(open_page(rich_report, 390, has_touch=True))
    page.get_by_role("combobox").select_option("all")
    center = cell_at(page, 2, 2)
    page.locator(".matrix").tap(position={"x": center["x"] + 5, "y": center["y"]})
    assert page.locator(".cell-images h4").inner_text() == "Label 00, predicted 00"


@pytest.mark.parametrize("classes", [("alone",), ("cat", "dog")])
def test_matrix_of_one_or_two_classes_opens_cells(
    open_page: Callable[..., Page], make: Callable[..., Report], classes: tuple[str, ...]
) -> None:
    page = scrolled_to_matrix(open_page(make(classes, images=30, included=30)))
    page.locator(".matrix").click(position=cell_at(page, 0, 0))  # type: ignore[arg-type]
    assert page.locator(".thumbnails li").count() > 0


def test_matrix_without_images_is_displayed(
    open_page: Callable[..., Page], make: Callable[..., Report]
) -> None:
    report = make(("cat", "dog"), images=30, included=30)
    empty = {"labels": (), "predicted": (), "confidence": (), "names": (), "images": ()}
    section = report.sections[2].model_copy(
        update={"blocks": (matrix_of(report).model_copy(update=empty),)}
    )
    page = scrolled_to_matrix(open_page(report.model_copy(update={"sections": (section,)})))
    assert "0 of 0 images correct." in page.locator(".summary").inner_text()
