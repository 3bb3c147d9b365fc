"""Whether chance alone parts two runs so far, and how many images would tell."""

import math

import numpy as np
from scipy import stats

from cls_report.statistics.intervals import Floats

SIGNIFICANT = 0.05
_POWER = 0.8
_FLIPS = 10_000


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the p-value of McNemar's exact test: how likely chance parts so many images at least so unevenly."""
    apart = only_first + only_second
    return (
        min(1.0, 2 * float(stats.binom.cdf(min(only_first, only_second), apart, 0.5)))
        if apart
        else 1.0
    )


def sign_flip(sums: Floats, seed: int = 0) -> float:
    """Return the p-value of groups' differences [G] under random signs: McNemar's test where groups are what is drawn.

    Each group's sign is as likely either way if the runs are equal, however its images hang together. The observed
    signs are counted among the draws, so that the value is never below 1 / (draws + 1).
    """
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    signs = np.random.default_rng(seed).integers(0, 2, (_FLIPS, len(sums))) * 2 - 1
    reached = np.abs(signs @ sums) >= abs(float(sums.sum())) - 1e-9
    return float((reached.sum() + 1) / (_FLIPS + 1))


def needed_images(
    images: int, only_first: int, only_second: int, design_effect: float = 1.0
) -> int | None:
    """Return how many images would show a difference as large as this one, in four of five tries.

    Connor, Biometrics 43 (1987), equation 2, for McNemar's test at 5 %; more by the design effect of images that come
    in groups. None where no difference is seen.
    """
    if only_first == only_second:
        return None
    apart, off = (only_first + only_second) / images, abs(only_first - only_second) / images
    z_level, z_power = float(stats.norm.ppf(1 - SIGNIFICANT / 2)), float(stats.norm.ppf(_POWER))
    alone = (
        (z_level * math.sqrt(apart) + z_power * math.sqrt(max(0.0, apart - off**2))) / off
    ) ** 2
    return math.ceil(alone * design_effect)
