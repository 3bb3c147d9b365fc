from statistics import mean, stdev

import pytest
from drawn import MakeRun

from cls_report.errors import ReportError
from cls_report.statistics.seeds import Spread, across_seeds, runs_of_one_recipe


def test_seeds_of_one_recipe_have_a_mean_a_spread_and_a_noise_floor(make_run: MakeRun) -> None:
    runs = [make_run(f"seed{seed}", seed) for seed in (1, 2, 3)]
    found = across_seeds(runs)
    shares = [
        float(
            (
                run.predictions["valid"].logits.argmax(axis=1) == run.predictions["valid"].labels
            ).mean()
        )
        for run in runs
    ]
    assert found.top1.values == pytest.approx(shares)
    assert found.top1.mean.value == pytest.approx(mean(shares))
    half = 4.302653 * stdev(shares) / 3**0.5  # Student's quantile of two degrees of freedom
    assert found.top1.mean.low == pytest.approx(mean(shares) - half)
    assert found.top1.noise_floor == pytest.approx(4.302653 * 2**0.5 * stdev(shares))
    assert "may differ by their seeds alone" in found.sentences()[0]


def test_equal_runs_have_no_spread() -> None:
    assert Spread((0.9, 0.9)).noise_floor == 0


def test_the_newest_runs_recipe_is_found_among_others(make_run: MakeRun) -> None:
    make_run("other", 5, sampler="weighted")
    old = make_run("seed1-old", 1)
    kept = [make_run("seed2", 2), make_run("seed1", 1)]
    import os

    for age, run in enumerate([kept[1], kept[0], old]):
        os.utime(run.path / "evaluation.json", (2_000_000_000 - age, 2_000_000_000 - age))
    assert runs_of_one_recipe(old.path.parent) == [kept[1].path, kept[0].path]


def test_runs_that_differ_in_more_than_their_seed_are_refused_by_key(make_run: MakeRun) -> None:
    with pytest.raises(
        ReportError, match=r"differ in more than their seeds: data.sampler; to compare recipes"
    ):
        across_seeds([make_run("a", 1), make_run("b", 2, sampler="weighted")])
    with pytest.raises(ReportError, match="expected each seed once, got 1, 1"):
        across_seeds([make_run("c", 1), make_run("d", 1)])
    with pytest.raises(ReportError, match="expected at least two runs"):
        across_seeds([make_run("e", 1)])
    with pytest.raises(ReportError, match="not evaluated on test"):
        across_seeds([make_run("f", 1), make_run("g", 2)], "test")
