from collections.abc import Callable

from playwright.sync_api import Page, expect

from cls_report.page.blocks import Report


def opened(open_page: Callable[..., Page], report: Report) -> Page:
    page = open_page(report)
    page.locator(".gallery").scroll_into_view_if_needed()
    page.wait_for_selector(".gallery img[src]")
    return page


def test_a_gallery_shows_each_picture_with_its_overlay_beside_it(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = opened(open_page, rich_report)
    gallery = rich_report.sections[4].blocks[0]
    assert gallery.block == "gallery"
    sources = page.locator(".gallery img").evaluate_all(
        "(images) => images.map((image) => image.src)"
    )
    expected = [
        place
        for shown in gallery.shown
        for place in (shown.picture, shown.overlay)
        if place is not None
    ]
    assert sources == [rich_report.pictures[place] for place in expected]
    assert page.locator(".gallery img").evaluate_all(
        "(all) => all.every((image) => image.naturalWidth > 0)"
    )


def test_a_wrong_answer_is_marked_in_words(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = opened(open_page, rich_report)
    assert (
        page.locator(".gallery .shown .mark").all_inner_texts() == ["✗ wrong"] * 6 + ["✓ right"] * 2
    )


def test_a_picture_is_enlarged_and_arrow_keys_lead_to_its_neighbours(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = opened(open_page, rich_report)
    gallery = rich_report.sections[4].blocks[0]
    assert gallery.block == "gallery"
    page.locator(".gallery button.pictures").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(gallery.shown[0].lines[-1])
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text(gallery.shown[1].lines[-1])
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert page.evaluate("document.activeElement.className") == "pictures"
