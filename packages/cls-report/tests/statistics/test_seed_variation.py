from statistics import mean, stdev

import pytest

from cls_report.statistics.seed_variation import SeedVariation


def test_seed_variation_has_students_interval_and_noise_floor() -> None:
    values = (0.91, 0.88, 0.93)
    variation = SeedVariation(values)
    assert variation.mean.value == pytest.approx(mean(values))
    half = 4.302653 * stdev(values) / 3**0.5  # Student's quantile for two degrees of freedom
    assert variation.mean.low == pytest.approx(mean(values) - half)
    assert variation.mean.high == pytest.approx(mean(values) + half)
    assert variation.noise_floor == pytest.approx(4.302653 * 2**0.5 * stdev(values))


def test_seed_variation_of_equal_runs_is_zero() -> None:
    assert SeedVariation((0.9, 0.9)).noise_floor == 0
