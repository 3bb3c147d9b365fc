import os

import numpy as np
import pytest
from report_data import MakeRun

from cls_report.errors import ReportError
from cls_report.reports.seed_summary import find_runs_of_newest_recipe, summarize_seeds


def test_seed_summary_has_the_accuracy_of_each_run(make_run: MakeRun) -> None:
    runs = [make_run(f"seed{seed}", seed) for seed in (1, 2, 3)]
    summary = summarize_seeds(runs)
    accuracies = []
    for run in runs:
        predictions = run.predictions["valid"]
        accuracies.append(np.mean(predictions.logits.argmax(axis=1) == predictions.labels))
    assert summary.seeds == (1, 2, 3)
    assert summary.top1.values == pytest.approx(accuracies)
    assert "can be due to their seeds alone" in summary.describe()[0]


def test_newest_recipe_is_found_among_others_with_the_newest_run_per_seed(
    make_run: MakeRun,
) -> None:
    make_run("other", 5, sampler="weighted")
    old = make_run("seed1-old", 1)
    second, first = make_run("seed2", 2), make_run("seed1", 1)
    for age, run in enumerate([first, second, old]):
        os.utime(run.paths.evaluation, (2_000_000_000 - age, 2_000_000_000 - age))
    assert find_runs_of_newest_recipe(old.path.parent) == [first.path, second.path]


def test_damaged_runs_of_other_recipes_do_not_disturb_the_newest_one(make_run: MakeRun) -> None:
    unreadable = make_run("unreadable", 7)
    unreadable.paths.config.write_text("[")
    other = make_run("other", 5, sampler="weighted")
    (other.paths.predictions / "valid.npz").write_bytes(b"")
    runs = [make_run("seed1", 1), make_run("seed2", 2)]
    for run in runs:
        os.utime(run.paths.evaluation, (2_000_000_000, 2_000_000_000))
    assert find_runs_of_newest_recipe(other.path.parent) == [run.path for run in runs]


def test_seed_summary_rejects_runs_that_differ_in_more_than_the_seed(make_run: MakeRun) -> None:
    with pytest.raises(
        ReportError, match=r"differ in more than their seeds: data.sampler; to compare two recipes"
    ):
        summarize_seeds([make_run("a", 1), make_run("b", 2, sampler="weighted")])
    with pytest.raises(ReportError, match="expected different seeds, got 1, 1"):
        summarize_seeds([make_run("c", 1), make_run("d", 1)])
    with pytest.raises(ReportError, match="expected at least two runs"):
        summarize_seeds([make_run("e", 1)])
    with pytest.raises(ReportError, match="not evaluated on test"):
        summarize_seeds([make_run("f", 1), make_run("g", 2)], "test")
