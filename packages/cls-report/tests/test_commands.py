import sys
from collections.abc import Callable

import numpy as np
import pytest
from drawn import MakeRun, drawn_predictions

from cls_report.commands import compare_runs, report

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call a command as the shell does; return its exit code, its output and its complaint."""

    def run(command: Callable[[], None], *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        code = 0
        try:
            command()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_report_writes_a_page_into_each_run(make_run: MakeRun, call: Call) -> None:
    runs = [make_run("a", 1), make_run("b", 2)]
    code, out, _ = call(report, *(run.path for run in runs))
    assert code == 0
    for run in runs:
        assert str(run.path / "report.html") in out
        assert "<!doctype html>" in (run.path / "report.html").read_text().lower()[:200]


def test_compare_says_the_verdict_and_writes_a_page(make_run: MakeRun, call: Call) -> None:
    first, second = make_run("old", 1), make_run("new", 2)
    page = first.path / "comparison.html"
    code, out, _ = call(compare_runs, first.path, second.path, "--html", page)
    assert code == 0
    assert "Not distinguishable on 60 images: old" in out.replace("\n", " ")
    assert "Only new is right" in page.read_text()


def test_compare_across_seeds_finds_the_runs_itself(make_run: MakeRun, call: Call) -> None:
    runs = [make_run(f"seed{seed}", seed) for seed in (1, 2, 3)]
    root = runs[0].path.parent
    code, out, _ = call(compare_runs, "--seeds", "--root", root)
    assert code == 0
    assert "3 seeds, 60 images of valid" in out
    assert "top-1: mean" in out


def test_folds_become_one_page(make_run: MakeRun, call: Call) -> None:
    whole = drawn_predictions(images=60)
    other = drawn_predictions(ids=np.array([f"valid/other{row:03}.png" for row in range(60)]))
    runs = [
        make_run("fold0", 1, whole, fold=0, folds=2),
        make_run("fold1", 1, other, fold=1, folds=2),
    ]
    page = runs[0].path.parent / "folds.html"
    code, _, err = call(report, *(run.path for run in runs), "--folds", page)
    assert (code, err) == (0, "")
    assert "120 images, each answered by a network that did not train on it" in page.read_text()


def test_mistakes_end_with_one_message_and_code_2(make_run: MakeRun, call: Call) -> None:
    run = make_run("a")
    code, _, err = call(report, run.path.parent)
    assert code == 2
    assert err.startswith("ReportError: ")
    code, _, err = call(compare_runs, run.path)
    assert code == 2
    assert "expected two runs, got 1; several seeds of one recipe take --seeds" in err
    code, _, err = call(compare_runs, run.path, run.path, "--split", "test")
    assert code == 2
    assert "was not evaluated on test, only on valid" in err
    code, _, err = call(compare_runs, "--seeds", "--root", run.path)
    assert code == 2
    assert "no evaluated run lies here" in err
