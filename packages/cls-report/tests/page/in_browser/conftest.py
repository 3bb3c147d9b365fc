"""Open pages from disk in the Chromium of the system."""

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
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed; on Debian: apt-get install chromium")
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox"] if as_root else []
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a report. The page must not log errors or request anything."""
    errors: list[str] = []
    requests: list[str] = []

    def open_report(report: Report, width: int = 1280, **context: Any) -> Page:
        file = tmp_path / "report.html"
        file.write_text(render(report), encoding="utf-8")
        settings = {
            "viewport": {"width": width, "height": 900},
            "reduced_motion": "reduce",
            **context,
        }
        page = browser.new_context(**settings).new_page()
        page.on("console", lambda message: errors.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        return page

    yield open_report
    for context in browser.contexts:
        context.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


@pytest.fixture
def open_blocks(open_page: Callable[..., Page]) -> Callable[..., Page]:
    """Return a function that opens a page with one section of blocks."""

    def open_section(*blocks: Block, images: tuple[str, ...] = (), **settings: Any) -> Page:
        section = Section(key="only", title="Only section", blocks=blocks)
        return open_page(
            Report(title="run", subtitle="test", sections=(section,), images=images), **settings
        )

    return open_section
