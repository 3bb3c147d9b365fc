import numpy as np
import pytest
from drawn import drawn_answers
from hypothesis import given, settings
from hypothesis import strategies as st

from cls_report.page.blocks import Estimate
from cls_report.statistics.calibration import calibration_error
from cls_report.statistics.evaluated import Answers
from cls_report.statistics.intervals import (
    Clusters,
    Resamples,
    bootstrap,
    in_points,
    in_words,
    share,
    wilson,
)
from cls_report.statistics.scores import score

_counts = st.integers(1, 500).flatmap(
    lambda images: st.tuples(st.integers(0, images), st.just(images))
)


@settings(deadline=None)
@given(_counts)
def test_wilsons_bounds_enclose_the_share_and_stay_between_0_and_1(counts: tuple[int, int]) -> None:
    found = wilson(*counts)
    assert found.low is not None
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilsons_interval_is_that_of_the_textbook() -> None:
    found = wilson(81, 263)  # Newcombe, Statistics in Medicine 17 (1998), table I
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_a_share_of_no_image_has_no_value() -> None:
    assert wilson(0, 0).value is None
    assert share(np.zeros(0, bool), Clusters.from_groups(np.zeros(0, np.str_))).value is None


def test_images_without_a_group_are_on_their_own() -> None:
    clusters = Clusters.from_groups(np.array(["a", "", "a", "", "b"]))
    assert clusters.count == 4
    assert clusters.grouped
    assert len(set(clusters.of[[0, 2]])) == 1
    assert clusters.sums(np.arange(5.0)).sum() == 10


def test_groups_whose_images_are_alike_are_worth_as_much_as_single_images() -> None:
    once = np.random.default_rng(0).random(60) < 0.7
    alone = share(once, Clusters.from_groups(np.full(60, "")))
    tenfold = share(
        np.repeat(once, 10), Clusters.from_groups(np.repeat(np.arange(60), 10).astype(str))
    )
    assert tenfold.value == pytest.approx(alone.value)
    assert tenfold.low == pytest.approx(
        alone.low, abs=0.01
    )  # Student's quantile makes it a little wider
    assert tenfold.high == pytest.approx(alone.high, abs=0.01)
    assert (
        share(np.repeat(once, 10), Clusters.from_groups(np.full(600, ""))).low > tenfold.low + 0.05
    )


def test_groups_that_mean_nothing_widen_nothing() -> None:
    right = np.random.default_rng(0).random(600) < 0.7
    alone = share(right, Clusters.from_groups(np.full(600, "")))
    grouped = share(right, Clusters.from_groups((np.arange(600) % 100).astype(str)))
    assert grouped.low == pytest.approx(alone.low, abs=0.015)


def test_resamples_draw_whole_groups() -> None:
    clusters = Clusters.from_groups(np.array(["a", "a", "b", "", "b"]))
    weights = Resamples.draw(clusters, rounds=50).weights
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    drawn = weights[:, [0, 2, 3]].sum(axis=1)
    assert (drawn == clusters.count).all()


def test_a_bootstrap_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    weights = Resamples.draw(Clusters(np.arange(400), 400)).weights
    found = bootstrap(float(values.mean()), weights @ values / 400)
    half = 1.96 * values.std(ddof=1) / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)


def test_what_is_not_finite_has_no_value() -> None:
    assert bootstrap(float("nan"), np.ones(10)).value is None
    assert bootstrap(0.5, np.full(10, np.nan)) == Estimate(value=0.5)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80))
def test_a_calibration_error_has_bounds_between_0_and_1(seed: int, images: int) -> None:
    draws = np.random.default_rng(seed)
    found = calibration_error(
        draws.random(images), draws.random(images) < 0.5, Clusters(np.arange(images), images)
    )
    assert 0 <= found.low <= found.high <= 1


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    # 150 evaluations of 300 images; benchmarks/intervals.py has 2,000 of them, with groups too. By chance alone 15 of
    # 150 miss in one of 50,000 such tests.
    names = ("top1", "macro_f1", "auroc", "loss", "calibration_error")
    whole = drawn_answers(60_000, seed=0)
    truth = score(whole, Resamples(np.ones((1, 60_000))))
    missed = dict.fromkeys(names, 0)
    for seed in range(1, 151):
        answers = drawn_answers(300, seed)
        found = score(answers, Resamples.draw(answers.clusters, rounds=300, seed=seed))
        for name in names:
            estimate = getattr(found, name)
            missed[name] += not estimate.low <= getattr(truth, name).value <= estimate.high
    assert max(missed.values()) <= 20, missed
    assert sum(missed.values()) >= 5, missed


def test_figures_are_written_with_their_bounds() -> None:
    assert in_words(Estimate(value=0.89, low=0.8538, high=0.9183)) == "89.0 % (85.4-91.8)"
    assert in_words(Estimate(value=None)) == "-"
    assert in_points(Estimate(value=0.011, low=-0.008, high=0.03)) == "+1.1 (-0.8 to +3.0) points"


def test_groups_widen_every_interval() -> None:
    answers = drawn_answers(300, 1)
    copies = Answers(
        np.repeat(answers.truth, 4),
        np.repeat(answers.answer, 4),
        np.repeat(answers.log_probabilities, 4, axis=0),
        answers.classes,
        Clusters(np.repeat(np.arange(300), 4), 300),
    )
    alone, copied = score(answers), score(copies)
    for name in ("top1", "macro_f1", "auroc", "loss"):
        one, four = getattr(alone, name), getattr(copied, name)
        assert four.value == pytest.approx(one.value, abs=0.005)
        assert four.high - four.low == pytest.approx(one.high - one.low, rel=0.2)
