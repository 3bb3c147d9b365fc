"""A real browser, the system's own, in which pages are opened from disk."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from cls_report.page.blocks import Block, Report, Section
from cls_report.page.render import render

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(
            f"needs one of {', '.join(NAMES)} on the path, such as from: apt-get install chromium"
        )
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox"] if as_root else []
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """What writes a report to disk and opens it; at the end, no page may have complained or asked for anything."""
    complaints: list[str] = []
    requests: list[str] = []

    def opened(report: Report, width: int = 1280, **context: Any) -> Page:
        file = tmp_path / "report.html"
        file.write_text(render(report), encoding="utf-8")
        settings = {
            "viewport": {"width": width, "height": 900},
            "reduced_motion": "reduce",
            **context,
        }
        page = browser.new_context(**settings).new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in browser.contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


@pytest.fixture
def open_blocks(open_page: Callable[..., Page]) -> Callable[..., Page]:
    """What opens a page of one section of these blocks."""

    def opened(*blocks: Block, pictures: tuple[str, ...] = (), **settings: Any) -> Page:
        section = Section(key="only", title="Only section", blocks=blocks)
        return open_page(
            Report(title="run", subtitle="test", sections=(section,), pictures=pictures), **settings
        )

    return opened
