"""Measure rendering, opening, and using a report page at three sizes.

Command:  uv run python benchmarks/report_page.py    (about a minute on two cores; needs Chromium)
Expected: a table; with 50,000 predictions and 1,000 classes, the page is rendered within 1 s and
          painted within 1 s of opening the file.

The figures are medians of five. `rendered` is `render` alone. `painted` is the first contentful
paint of the browser, from disk, at 1280x900. `ready` is when the scripts have run. For the
confusion matrix, its largest cell, and sorting a table, the time is from the event to the end of
the layout that follows.
"""

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, sync_playwright

from cls_report.page.blocks import (
    Chart,
    Column,
    ConfusionMatrix,
    Report,
    Section,
    Series,
    Table,
)
from cls_report.page.render import render
from cls_report.statistics.estimates import Estimate

ROUNDS = 5
SIZES = ((43, 364, 364), (100, 10_000, 1_000), (1_000, 50_000, 1_000))
"""Classes, predictions, and pictures."""

COLUMNS = ("rendered s", "painted s", "ready s", "matrix s", "cell s", "sort s")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PICTURE = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
PICTURE_BYTES = 2_000

PAINT_TIMES = """() => {
    const [navigation] = performance.getEntriesByType("navigation");
    const [paint] = performance.getEntriesByName("first-contentful-paint");
    return [paint.startTime, navigation.domInteractive];
}"""

SHOW_MATRIX = """async () => {
    const start = performance.now();
    document.querySelector(".confusion-matrix").scrollIntoView();
    while (!document.querySelector(".matrix canvas")) {
        await new Promise(requestAnimationFrame);
    }
    return performance.now() - start;
}"""

CLICK = """(selector) => {
    const start = performance.now();
    document.querySelector(selector).click();
    document.body.offsetHeight;
    return performance.now() - start;
}"""


def main() -> None:
    """Measure and print a table."""
    heads = ("classes", "predictions", "MB", *COLUMNS)
    print("".join(f"{head:>12}" for head in heads))
    with open_browser() as browser, tempfile.TemporaryDirectory() as folder:
        for classes, predictions, pictures in SIZES:
            report = make_report(classes, predictions, pictures)
            file = Path(folder) / "report.html"
            rows = []
            for _ in range(ROUNDS):
                started = time.perf_counter()
                page = render(report)
                rendered = time.perf_counter() - started
                file.write_text(page, encoding="utf-8")
                rows.append((rendered, *measure_page(browser, file)))
            medians = [statistics.median(column) for column in zip(*rows, strict=True)]
            megabytes = file.stat().st_size / 1e6
            line = f"{classes:>12,}{predictions:>12,}{megabytes:>12.2f}"
            print(line + "".join(f"{seconds:>12.3f}" for seconds in medians))


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the installed Chromium."""
    executables = [path for name in BROWSERS if (path := shutil.which(name))]
    if not executables:
        sys.exit("Chromium is not on PATH. Install it, for example with: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executables[0], args=["--no-sandbox"])
        yield browser
        browser.close()


def measure_page(browser: Browser, file: Path) -> list[float]:
    """Return the seconds of every step after rendering."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(file.as_uri())
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
    milliseconds = [
        *page.evaluate(PAINT_TIMES),
        page.evaluate(SHOW_MATRIX),
        page.evaluate(CLICK, ".top-confusions button"),
        page.evaluate(CLICK, "th:nth-child(3) button"),
    ]
    page.close()
    return [value / 1000 for value in milliseconds]


def make_report(classes: int, predictions: int, pictures: int) -> Report:
    """Return a report with a table of classes, charts, and a confusion matrix of random data."""
    names = tuple(f"class {index}" for index in range(classes))
    charts = (make_chart(),) * 6  # so that the confusion matrix is far below the first screen
    confusion = make_confusion(names, predictions, pictures)
    sections = (
        Section(key="classes", title="Classes", blocks=(make_table(names),)),
        Section(key="curves", title="Curves", blocks=charts),
        Section(key="confusion", title="Confusion", blocks=(confusion,)),
    )
    images = (PICTURE + "A" * PICTURE_BYTES,) * pictures
    return Report(title="run", subtitle="random data", sections=sections, images=images)


def make_confusion(classes: tuple[str, ...], predictions: int, pictures: int) -> ConfusionMatrix:
    """Return a confusion matrix of random predictions, nine in ten of them right."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(classes), predictions)
    is_wrong = rng.random(predictions) < 0.1
    predicted = np.where(is_wrong, rng.integers(0, len(classes), predictions), labels)
    rows = range(predictions)
    return ConfusionMatrix(
        title="valid",
        classes=classes,
        labels=tuple(labels.tolist()),
        predicted=tuple(predicted.tolist()),
        confidence=tuple(rng.integers(0, 1001, predictions).tolist()),
        names=tuple(f"valid/game-{row % 97}/frame_{row:06d}.jpg" for row in rows),
        images=tuple(row if row < pictures else -1 for row in rows),
    )


def make_table(classes: tuple[str, ...]) -> Table:
    """Return a table with two random metrics for each class."""
    values = np.random.default_rng(1).random(len(classes))
    estimates = tuple(Estimate(value=v, low=v * 0.9, high=v * 0.9 + 0.1) for v in values)
    columns = (
        Column(title="class", kind="text", values=classes),
        Column(title="recall", kind="share_estimate", values=estimates),
        Column(title="F1", kind="share_estimate", values=estimates),
    )
    return Table(title="classes", columns=columns)


def make_chart() -> Chart:
    """Return a line chart with 2,000 points."""
    steps = tuple(float(step) for step in range(2000))
    series = (Series(name="train", x=steps, y=steps),)
    return Chart(title="loss", x_title="step", y_title="loss", series=series)


if __name__ == "__main__":
    main()
