"""Tests of whether two models differ on the same images, and their sample size."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from cls_report.statistics.intervals import Floats

SIGNIFICANCE_LEVEL = 0.05
_POWER = 0.8
_FLIPS = 10_000


def mcnemar_test(only_first: int, only_second: int) -> float:
    """Return the p-value of McNemar's exact test.

    The arguments are the numbers of images that only one of the models predicts correctly.
    """
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0

    fewer = min(only_first, only_second)
    tail = float(stats.binom.cdf(fewer, discordant, 0.5))
    return min(1.0, 2 * tail)


def sign_flip_test(sums: Floats, seed: int = 0) -> float:
    """Return the p-value of the differences of clusters [G] under random sign flips.

    It replaces McNemar's test if clusters, not images, are independent: for equal models, each
    cluster's sign is equally likely either way. The observed signs count as one of the draws, so
    the p-value is at least 1 / (draws + 1).
    """
    nonzero = sums[sums != 0]
    if len(nonzero) == 0:
        return 1.0

    observed = abs(float(nonzero.sum()))
    generator = np.random.default_rng(seed)
    shape = (_FLIPS, len(nonzero))
    coins = generator.integers(0, 2, shape)
    signs = coins * 2 - 1
    sums_of_flips = signs @ nonzero
    is_extreme = np.abs(sums_of_flips) >= observed - 1e-9
    extreme = int(is_extreme.sum())
    return (extreme + 1) / (_FLIPS + 1)


def holm_adjust(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple tests (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    count = len(p_values)
    adjusted = [1.0] * count
    highest = 0.0
    order = np.argsort(p_values, kind="stable")
    for rank, index in enumerate(order):
        remaining = count - rank
        corrected = min(1.0, p_values[index] * remaining)
        highest = max(highest, corrected)
        adjusted[index] = highest

    return adjusted


def required_images(
    images: int, only_first: int, only_second: int, design_effect: float = 1.0
) -> int | None:
    """Return the number of images that detects the observed difference with a power of 80%.

    Connor, Biometrics 43 (1987), equation 2, for McNemar's test at the 5% level, multiplied by the
    design effect of clustered images. None if the models do not differ.
    """
    if only_first == only_second:
        return None

    discordant = (only_first + only_second) / images
    difference = abs(only_first - only_second) / images
    quantile = 1 - SIGNIFICANCE_LEVEL / 2
    z_level = float(stats.norm.ppf(quantile))
    z_power = float(stats.norm.ppf(_POWER))
    variance = max(0.0, discordant - difference**2)
    null_term = z_level * math.sqrt(discordant)
    power_term = z_power * math.sqrt(variance)
    total = null_term + power_term
    independent = (total / difference) ** 2
    return math.ceil(independent * design_effect)
