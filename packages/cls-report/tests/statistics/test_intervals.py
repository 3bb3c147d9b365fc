import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_data import make_evaluated

from cls_report.statistics.calibration import (
    estimate_calibration_error,
    expected_calibration_error,
)
from cls_report.statistics.estimates import Estimate, format_percent, format_points
from cls_report.statistics.evaluated_predictions import EvaluatedPredictions
from cls_report.statistics.intervals import (
    Clusters,
    bca_interval,
    bootstrap_weights,
    proportion_interval,
    wilson_interval,
)
from cls_report.statistics.scores import compute_scores

_counts = st.integers(1, 500).flatmap(
    lambda images: st.tuples(st.integers(0, images), st.just(images))
)


@settings(deadline=None)
@given(_counts)
def test_wilson_interval_contains_the_share_and_stays_within_0_and_1(
    counts: tuple[int, int],
) -> None:
    estimate = wilson_interval(*counts)
    assert estimate.low is not None
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_wilson_interval_matches_a_published_example() -> None:
    estimate = wilson_interval(81, 263)  # Newcombe, Statistics in Medicine 17 (1998), table I
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.2553, 0.3662)


def test_proportion_of_no_images_has_no_value() -> None:
    assert wilson_interval(0, 0).value is None
    no_clusters = Clusters.from_groups(np.zeros(0, np.str_))
    assert proportion_interval(np.zeros(0, bool), no_clusters).value is None


def test_images_without_a_group_are_clusters_by_themselves() -> None:
    clusters = Clusters.from_groups(np.array(["a", "", "a", "", "b"]))
    assert clusters.count == 4
    assert clusters.is_grouped
    assert len(set(clusters.index[[0, 2]])) == 1
    assert clusters.sum_by_cluster(np.arange(5.0)).sum() == 10


def test_clusters_of_identical_images_count_like_single_images() -> None:
    single = np.random.default_rng(0).random(60) < 0.7
    repeated = np.repeat(single, 10)
    independent = proportion_interval(single, Clusters.from_groups(np.full(60, "")))
    groups = np.repeat(np.arange(60), 10).astype(str)
    clustered = proportion_interval(repeated, Clusters.from_groups(groups))
    assert clustered.value == pytest.approx(independent.value)
    # Student's quantile makes it slightly wider.
    assert clustered.low == pytest.approx(independent.low, abs=0.01)
    assert clustered.high == pytest.approx(independent.high, abs=0.01)
    ungrouped = proportion_interval(repeated, Clusters.from_groups(np.full(600, "")))
    assert ungrouped.low > clustered.low + 0.05


def test_random_clusters_do_not_widen_the_interval() -> None:
    correct = np.random.default_rng(0).random(600) < 0.7
    independent = proportion_interval(correct, Clusters.from_groups(np.full(600, "")))
    groups = (np.arange(600) % 100).astype(str)
    clustered = proportion_interval(correct, Clusters.from_groups(groups))
    assert clustered.low == pytest.approx(independent.low, abs=0.015)


def test_bootstrap_draws_whole_clusters() -> None:
    clusters = Clusters.from_groups(np.array(["a", "a", "b", "", "b"]))
    weights = bootstrap_weights(clusters, rounds=50)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == clusters.count).all()


def test_bootstrap_interval_of_a_mean_matches_its_standard_error() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    weights = bootstrap_weights(Clusters(np.arange(400), 400))
    estimate = bca_interval(float(values.mean()), weights @ values / 400)
    half = 1.96 * values.std(ddof=1) / 20
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.02)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.02)


def test_bootstrap_interval_ignores_values_that_are_not_finite() -> None:
    assert bca_interval(float("nan"), np.ones(10)).value is None
    assert bca_interval(0.5, np.full(10, np.nan)) == Estimate(value=0.5)


def test_expected_calibration_error_matches_its_formula() -> None:
    # Two bins: three images with confidence 0.9, two of them correct; one with 0.2, wrong.
    confidence = np.array([0.9, 0.9, 0.9, 0.2])
    correct = np.array([True, True, False, False])
    expected = 3 / 4 * abs(0.9 - 2 / 3) + 1 / 4 * 0.2
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(expected)
    assert np.isnan(expected_calibration_error(np.empty(0), np.empty(0, bool)))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80))
def test_calibration_error_has_bounds_within_0_and_1(seed: int, images: int) -> None:
    generator = np.random.default_rng(seed)
    estimate = estimate_calibration_error(
        generator.random(images),
        generator.random(images) < 0.5,
        Clusters(np.arange(images), images),
    )
    assert 0 <= estimate.low <= estimate.high <= 1


def test_intervals_cover_the_true_values_at_about_their_level() -> None:
    # 150 evaluations of 300 images; benchmarks/intervals.py runs 2,000, also with clusters. By
    # chance alone, 15 of 150 intervals miss in one of 50,000 such tests.
    names = ("top1", "macro_f1", "auroc", "loss", "calibration_error")
    population = make_evaluated(60_000, seed=0)
    truth = compute_scores(population, np.ones((1, 60_000)))
    misses = dict.fromkeys(names, 0)
    for seed in range(1, 151):
        evaluated = make_evaluated(300, seed)
        weights = bootstrap_weights(evaluated.clusters, rounds=300, seed=seed)
        scores = compute_scores(evaluated, weights)
        for name in names:
            estimate = getattr(scores, name)
            misses[name] += not estimate.low <= getattr(truth, name).value <= estimate.high
    assert max(misses.values()) <= 20, misses
    assert sum(misses.values()) >= 5, misses


def test_estimates_are_formatted_with_their_bounds() -> None:
    assert format_percent(Estimate(value=0.89, low=0.8538, high=0.9183)) == "89.0% (85.4-91.8)"
    assert format_percent(Estimate(value=0.89)) == "89.0%"
    assert format_percent(Estimate(value=None)) == "-"
    difference = Estimate(value=0.011, low=-0.008, high=0.03)
    assert format_points(difference) == "+1.1 (-0.8 to +3.0) points"


def test_clusters_widen_the_interval_of_every_metric() -> None:
    evaluated = make_evaluated(300, 1)
    copies = EvaluatedPredictions(
        labels=np.repeat(evaluated.labels, 4),
        predicted=np.repeat(evaluated.predicted, 4),
        log_probabilities=np.repeat(evaluated.log_probabilities, 4, axis=0),
        classes=evaluated.classes,
        clusters=Clusters(np.repeat(np.arange(300), 4), 300),
    )
    single_scores, copied_scores = compute_scores(evaluated), compute_scores(copies)
    for name in ("top1", "macro_f1", "auroc", "loss"):
        single, copied = getattr(single_scores, name), getattr(copied_scores, name)
        assert copied.value == pytest.approx(single.value, abs=0.005)
        assert copied.high - copied.low == pytest.approx(single.high - single.low, rel=0.2)
