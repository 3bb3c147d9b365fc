"""What a report's page costs: making it, opening it, and using it, at three sizes.

Command:  uv run python benchmarks/report.py          (about a minute on two cores; needs a Chromium on the path)
Expected: a table; of 50,000 predictions in 1,000 classes the page is made well within 1 s, and its first paint comes
          within 1 s of opening the file.

Medians of five. Made is `render` alone. Painted is the browser's own first contentful paint, from disk, at 1280x900;
ready is when the page's scripts have run. A confusion opens, a table sorts: from the event to the end of the layout
that follows. Pictures are as many as given, of about 2 kB.
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
from playwright.sync_api import Browser, Page, sync_playwright

from cls_report.page.blocks import (
    Chart,
    Column,
    Confusion,
    Estimate,
    Report,
    Section,
    Series,
    Table,
)
from cls_report.page.render import render

ROUNDS = 5
SIZES = (
    (43, 364, 364),
    (100, 10_000, 1_000),
    (1_000, 50_000, 1_000),
)  # classes, predictions, pictures
PICTURE = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
TIMES = """() => {
    const [navigation] = performance.getEntriesByType("navigation");
    const [paint] = performance.getEntriesByName("first-contentful-paint");
    return [paint.startTime, navigation.domInteractive];
}"""
PRESSED = """(selector) => {
    const start = performance.now();
    document.querySelector(selector).click();
    document.body.offsetHeight;
    return performance.now() - start;
}"""


def main() -> None:
    """Measure and print."""
    heads = (
        "classes",
        "predictions",
        "MB",
        "made s",
        "painted s",
        "ready s",
        "confusion s",
        "opened s",
        "sorted s",
    )
    print("".join(f"{head:>12}" for head in heads))
    with browser() as chromium:
        for classes, predictions, pictures in SIZES:
            report = made_up(classes, predictions, pictures)
            seconds = [made(report) for _ in range(ROUNDS)]
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "report.html"
                file.write_text(render(report), encoding="utf-8")
                used = [opened(chromium, file) for _ in range(ROUNDS)]
                megabytes = file.stat().st_size / 1e6
            medians = [statistics.median(column) for column in zip(*used, strict=True)]
            medians.insert(0, statistics.median(seconds))
            print(
                f"{classes:>12,}{predictions:>12,}{megabytes:>12.2f}"
                + "".join(f"{each:>12.3f}" for each in medians)
            )


@contextmanager
def browser() -> Iterator[Browser]:
    """The system's own Chromium."""
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if found is None:
        sys.exit("No Chromium is on the path. Install one, such as by: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def made(report: Report) -> float:
    """Seconds to render."""
    started = time.perf_counter()
    render(report)
    return time.perf_counter() - started


def opened(chromium: Browser, file: Path) -> tuple[float, ...]:
    """Seconds to the first paint, until ready, to build the confusion, to open its largest cell, to sort the table."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto(file.as_uri())
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
    painted, ready = page.evaluate(TIMES)
    built = confusion_built(page)
    cell, sort = (
        page.evaluate(PRESSED, ".largest button"),
        page.evaluate(PRESSED, "th:nth-child(3) button"),
    )
    page.close()
    return tuple(milliseconds / 1000 for milliseconds in (painted, ready, built, cell, sort))


def confusion_built(page: Page) -> float:
    """Milliseconds from scrolling to the confusion until its matrix is there."""
    return float(
        page.evaluate("""async () => {
            const start = performance.now();
            document.querySelector(".confusion").scrollIntoView();
            while (!document.querySelector(".matrix canvas")) await new Promise(requestAnimationFrame);
            return performance.now() - start;
        }""")
    )


def made_up(classes: int, predictions: int, pictures: int) -> Report:
    """A report whose heavy parts are as large as asked: a chart, a confusion, a table of the classes."""
    chance = np.random.default_rng(0)
    truth = chance.integers(0, classes, predictions)
    answer = np.where(
        chance.random(predictions) < 0.1, chance.integers(0, classes, predictions), truth
    )
    confusion = Confusion(
        title="valid",
        classes=tuple(f"class {index}" for index in range(classes)),
        truth=tuple(truth.tolist()),
        answer=tuple(answer.tolist()),
        confidence=tuple(chance.integers(0, 1001, predictions).tolist()),
        names=tuple(
            f"valid/game-{index % 97}/frame_{index:06d}.jpg" for index in range(predictions)
        ),
        pictures=tuple(index if index < pictures else -1 for index in range(predictions)),
    )
    shares = [
        Estimate(value=share, low=share * 0.9, high=share * 0.9 + 0.1)
        for share in chance.random(classes)
    ]
    estimates = tuple(
        Column(title=name, kind="share_estimate", values=tuple(shares)) for name in ("recall", "F1")
    )
    table = Table(
        title="classes",
        columns=(Column(title="class", kind="text", values=confusion.classes), *estimates),
    )
    steps = tuple(float(step) for step in range(2000))
    chart = Chart(
        title="loss",
        x_title="step",
        y_title="loss",
        series=(Series(name="train", x=steps, y=steps),),
    )
    curves = Section(
        key="curves", title="Curves", blocks=(chart,) * 6
    )  # so that the confusion is not near the screen
    sections = (
        Section(key="classes", title="Classes", blocks=(table,)),
        curves,
        Section(key="confusion", title="Confusion", blocks=(confusion,)),
    )
    return Report(
        title="run",
        subtitle="made up",
        sections=sections,
        pictures=(PICTURE + "A" * 2000,) * pictures,
    )


if __name__ == "__main__":
    main()
