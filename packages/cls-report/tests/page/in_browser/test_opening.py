from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from cls_report.page.blocks import Report
from cls_report.page.render import render


def build_all(page: Page) -> None:
    """Scroll through the page."""
    for block in page.locator(".block").all():
        block.scroll_into_view_if_needed()
        page.wait_for_timeout(20)


def test_report_opens_from_disk_without_errors_or_requests(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = open_page(rich_report)
    build_all(page)
    page.wait_for_selector(".gallery img[src]")
    assert page.locator(".plot svg").count() == 2
    assert page.locator(".matrix canvas").count() == 1


def test_security_policy_blocks_injected_scripts_and_requests(
    browser: Browser, tmp_path: Path, rich_report: Report
) -> None:
    file = tmp_path / "report.html"
    file.write_text(render(rich_report), encoding="utf-8")
    page = browser.new_page()  # open_page would fail because of the blocked requests
    page.goto(file.as_uri())
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), "
        "{ text: 'window.ran = true' }))"
    )
    assert page.evaluate("window.ran") is None
    assert (
        page.evaluate("fetch('data:text/plain,x').then(() => 'loaded', () => 'refused')")
        == "refused"
    )
    page.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_the_screen_width(
    open_page: Callable[..., Page], rich_report: Report, width: int, scheme: str
) -> None:
    page = open_page(rich_report, width, color_scheme=scheme)
    build_all(page)
    page.locator(".top-confusions button").first.click()
    page.get_by_text("Configuration").click()
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_dark_mode_follows_the_system_and_can_be_switched_off(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = open_page(rich_report, color_scheme="dark")
    button = page.get_by_role("button", name="Dark mode")
    background = "getComputedStyle(document.body).backgroundColor"
    assert button.get_attribute("aria-pressed") == "true"
    assert page.evaluate(background) == "rgb(20, 23, 27)"
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    # Chromium stores the choice shortly after the click.
    for _ in range(20):
        page.reload()
        if page.evaluate(background) == "rgb(255, 255, 255)":
            break
        page.wait_for_timeout(250)
    assert page.evaluate(background) == "rgb(255, 255, 255)"


def test_page_without_scripts_has_texts_scores_and_tables_and_a_warning(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = open_page(rich_report, java_script_enabled=False)
    assert "Scripts are disabled" in page.locator("noscript").inner_text()
    assert page.locator(".score").count() == 5
    assert page.locator("tbody tr").count() == 43


def test_interactive_elements_have_accessible_names(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = open_page(rich_report)
    build_all(page)
    tree = page.locator("body").aria_snapshot()
    nameless = [
        line
        for line in tree.splitlines()
        if line.strip(" -:") in {"button", "link", "slider", "grid", "combobox"}
    ]
    assert nameless == []


def test_heading_levels_are_not_skipped(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = open_page(rich_report)
    build_all(page)
    page.locator(".top-confusions button").first.click()
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4,h5')].map((each) => Number(each.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_first_tab_stop_skips_the_navigation(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = open_page(rich_report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "MAIN"


def test_current_section_is_highlighted_in_the_navigation(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = open_page(rich_report)
    page.get_by_role("link", name="Classes").click()
    page.wait_for_selector("nav a[aria-current]:text('Classes')")


def test_copy_button_copies_code(open_page: Callable[..., Page], rich_report: Report) -> None:
    page = open_page(rich_report, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy: Command").click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").startswith("uv run apps/train")


def test_copy_button_selects_code_without_clipboard_access(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = open_page(rich_report)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.evaluate("document.execCommand = () => false")
    page.get_by_role("button", name="Copy: Command").click()
    page.get_by_text("press Ctrl+C").wait_for()
    assert page.evaluate("getSelection().toString()").startswith("uv run apps/train")


def test_printed_page_is_complete_and_light(
    open_page: Callable[..., Page], rich_report: Report
) -> None:
    page = open_page(rich_report, color_scheme="dark")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_selector(".plot svg path.line")
    assert page.locator(".matrix canvas").count() == 1
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.get_by_role("navigation").is_visible()
