"""Names are text, never markup: in tables on the terminal and in the HTML of reports."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from report_data import MakeRun, make_predictions

from cls_data import Predictions
from cls_report.commands import compare_runs, report

NAMES = (
    "[/x]",
    "[bold red]",
    "$x$",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "{{ 7 * 7 }} {% raw %}",
    "\x1b[31mred\x07\x00",
    "\u202egpj\u200f",
    "line\nbreak",
    "\ud800",
    "x" * 10_000,
    "",
)


class TagCounter(HTMLParser):
    """Counts the elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        assert not any(name.startswith("on") for name, _ in attrs)


def count_tags(html: str) -> dict[str, int]:
    counter = TagCounter()
    counter.feed(html)
    return counter.counts


def name_everything(predictions: Predictions, name: str) -> Predictions:
    """Use a name as class, group, metadata key, metadata value, and in each image name."""
    classes = predictions.classes.astype("U11000")
    classes[0] = name
    metadata = json.dumps({name: name, "game": "a"})
    rows = np.arange(len(predictions))
    ids = [f"{row}{name[:50].replace('/', '|')}".replace("\0", "0") for row in rows]
    return replace(
        predictions,
        ids=np.array(ids),
        classes=classes,
        groups=np.array([name if row % 2 else "" for row in rows]),
        metadata=np.array([metadata if row % 2 else "{}" for row in rows]),
    )


@pytest.fixture
def plain_tags(make_run: MakeRun) -> dict[str, int]:
    run = make_run("plain", predictions=name_everything(make_predictions(8), "plain"))
    assert report([str(run.path)]) == 0
    return count_tags(run.paths.report.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_report_shows_names_as_text(
    make_run: MakeRun, plain_tags: dict[str, int], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = name.encode(errors="replace").decode()  # the labels mapping needs UTF-8
    predictions = name_everything(make_predictions(8), text)
    run = make_run("named", predictions=predictions)
    text = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(text + f"extra: {json.dumps(name)}\n")
    assert report([str(run.path)]) == 0
    page = run.paths.report.read_text()
    tags = count_tags(page)
    for tag in ("script", "style", "section", "svg", "iframe", "img", "b"):
        assert tags.get(tag) == plain_tags.get(tag), tag
    assert "\x1b" not in capsys.readouterr().out


FOLDERS = ("[red]", "[bold red]", "$x$", "\x1b[31mred", "\u202egpj", "x" * 200, "a\nb", "\udcff")


@pytest.mark.parametrize("name", FOLDERS)
def test_comparisons_show_names_of_runs_as_text(
    make_run: MakeRun, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make_run("first", 1).path
    first = first.rename(first.with_name(name))
    second = make_run("second", 2).path
    page = second / "comparison.html"
    assert compare_runs([str(first), str(second), "--html", str(page)]) == 0
    assert compare_runs(["--seeds", str(first), str(second)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    if name in FOLDERS[:3]:
        assert name in printed
    assert count_tags(page.read_text())["script"] > 1


@pytest.mark.parametrize("name", NAMES)
def test_significant_differences_show_names_as_text(
    make_run: MakeRun, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = name.encode(errors="replace").decode()
    right = name_everything(make_predictions(200), name)
    perfect = np.full((200, 4), -5, np.float32)
    perfect[np.arange(200), right.labels] = 5
    wrong = np.roll(perfect, 1, axis=1)
    first = make_run("first", 1, replace(right, logits=wrong))
    second = make_run("second", 2, replace(right, logits=perfect))
    assert compare_runs([str(first.path), str(second.path)]) == 0
    printed = capsys.readouterr().out
    assert "class " in printed
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert len(printed) < 10_000


def test_the_report_of_a_folder_that_is_not_utf_8_has_an_escaped_title(make_run: MakeRun) -> None:
    folder = make_run("run").path
    folder = folder.rename(folder.with_name("caf\udce9"))
    assert report([str(folder)]) == 0
    assert r"<title>caf\udce9" in (folder / "report.html").read_text()


def test_images_and_metadata_that_are_not_utf_8_are_reported(make_run: MakeRun) -> None:
    run = make_run("run")
    predictions = make_predictions(8)
    ids = np.array([f"caf\udce9 {row}" for row in range(8)])
    metadata = np.array(['{"game": "\udce9"}', "{}"] * 4)
    replace(predictions, ids=ids, metadata=metadata).save(run.paths.predictions / "test.npz")
    assert report([str(run.path)]) == 0
    page = run.paths.report.read_text()
    assert r"caf\\udce9 3" in page  # in JSON, a backslash is escaped
    assert r"\udce9</bdi>" in page or r"\udce9</t" in page
