from collections.abc import Callable

from playwright.sync_api import Page, expect

from cls_report.page.blocks import Report


def open_gallery(open_page: Callable[..., Page], report: Report) -> Page:
    page = open_page(report)
    page.locator(".gallery").scroll_into_view_if_needed()
    page.wait_for_selector(".gallery img[src]")
    return page


def test_gallery_displays_each_image_beside_its_overlay(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = open_gallery(open_page, rich_report)
    gallery = rich_report.sections[4].blocks[0]
    assert gallery.block == "gallery"
    sources = page.locator(".gallery img").evaluate_all(
        "(images) => images.map((image) => image.src)"
    )
    expected = []
    for item in gallery.items:
        assert item.overlay is not None
        expected += [rich_report.images[item.image], rich_report.images[item.overlay]]
    assert sources == expected
    assert page.locator(".gallery img").evaluate_all(
        "(all) => all.every((image) => image.naturalWidth > 0)"
    )


def test_wrong_predictions_are_marked_with_text(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = open_gallery(open_page, rich_report)
    results = page.locator(".gallery .item .result").all_inner_texts()
    assert results == ["✗ wrong"] * 6 + ["✓ correct"] * 2


def test_click_enlarges_an_image_and_arrow_keys_move_to_the_next(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = open_gallery(open_page, rich_report)
    gallery = rich_report.sections[4].blocks[0]
    assert gallery.block == "gallery"
    page.locator(".gallery button.images").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(gallery.items[0].lines[-1])
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text(gallery.items[1].lines[-1])
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert page.evaluate("document.activeElement.className") == "images"
