import sys
from collections.abc import Callable

import numpy as np
import pytest
from report_data import MakeRun, make_predictions

from cls_report.commands import compare_runs, report

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs a command and returns its exit code, stdout, and stderr."""

    def run(command: Callable[[], int], *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        try:
            code = command()
        except SystemExit as stop:
            code = int(stop.code or 0)
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def test_report_writes_a_page_into_each_run_folder(make_run: MakeRun, call: Call) -> None:
    runs = [make_run("a", 1), make_run("b", 2)]
    code, out, _ = call(report, *(run.path for run in runs))
    assert code == 0
    for run in runs:
        assert str(run.path / "report.html") in out
        assert "<!doctype html>" in (run.path / "report.html").read_text().lower()[:200]


def test_compare_prints_the_verdict_and_writes_a_page(make_run: MakeRun, call: Call) -> None:
    first, second = make_run("old", 1), make_run("new", 2)
    page = first.path / "comparison.html"
    code, out, _ = call(compare_runs, first.path, second.path, "--html", page)
    assert code == 0
    assert "Not distinguishable on 60 images: old" in out.replace("\n", " ")
    assert "Only new is correct" in page.read_text()


def test_compare_seeds_finds_the_runs_of_the_newest_recipe(make_run: MakeRun, call: Call) -> None:
    runs = [make_run(f"seed{seed}", seed) for seed in (1, 2, 3)]
    root = runs[0].path.parent
    code, out, _ = call(compare_runs, "--seeds", "--root", root)
    assert code == 0
    assert "3 seeds, 60 images of valid" in out
    assert "top-1: mean" in out


def test_report_pools_folds_into_one_page(make_run: MakeRun, call: Call) -> None:
    first = make_predictions(images=60)
    second = make_predictions(ids=np.array([f"valid/other{row:03}.png" for row in range(60)]))
    runs = [
        make_run("fold0", 1, first, fold=0, folds=2),
        make_run("fold1", 1, second, fold=1, folds=2),
    ]
    page = runs[0].path.parent / "folds.html"
    code, _, err = call(report, *(run.path for run in runs), "--folds", page)
    assert (code, err) == (0, "")
    assert "120 images, each predicted by a model that did not train on it" in page.read_text()


def test_commands_exit_with_code_2_and_one_message_on_user_errors(
    make_run: MakeRun, call: Call
) -> None:
    run = make_run("a")
    code, _, err = call(report, run.path.parent)
    assert code == 2
    assert err.startswith("apps/report: ")
    code, _, err = call(compare_runs, run.path)
    assert code == 2
    assert "expected two runs, got 1; to summarize several seeds, use --seeds" in err
    code, _, err = call(compare_runs, run.path, run.path, "--split", "test")
    assert code == 2
    assert "not evaluated on test, only on valid" in err
    code, _, err = call(compare_runs, "--seeds", "--root", run.path)
    assert code == 2
    assert "no evaluated run" in err


EVALUATE = "uv run python -m cls_train.stages.evaluate"


@pytest.mark.parametrize("file", ["evaluation.json", "predictions/valid.npz"])
def test_advice_on_a_damaged_file_names_the_run_folder(
    make_run: MakeRun, call: Call, file: str
) -> None:
    run = make_run("a run")
    (run.path / file).write_text("damaged")
    code, _, err = call(report, run.path)
    assert code == 2
    assert f"`{EVALUATE} '{run.path}'`" in err


def test_advice_on_different_images_names_both_run_folders(make_run: MakeRun, call: Call) -> None:
    other = make_predictions(ids=np.array([f"valid/other{row:03}.png" for row in range(60)]))
    first = make_run("a")
    second = make_run("b", predictions=other)
    code, _, err = call(compare_runs, first.path, second.path)
    assert code == 2
    assert f"{EVALUATE} {first.path} && {EVALUATE} {second.path}" in err


def test_a_misspelled_split_gets_a_suggestion(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(make_run("a").path)
    with pytest.raises(SystemExit) as stop:
        compare_runs([run, run, "--split", "valids"])
    assert stop.value.code == 2
    assert "did you mean 'valid'?" in capsys.readouterr().err
