"""How far confidence lies from the share of right answers, and between which bounds."""

import numpy as np
from numpy.typing import NDArray

from cls_export.contract.calibration import expected_calibration_error
from cls_report.page.blocks import Estimate
from cls_report.statistics.intervals import Clusters, Floats, design_effect

BINS = 15
_ROUNDS = 2000
_LEVEL = 0.97
"""The profile of the gaps is itself an estimate: at 0.95 the interval covered the truth in 91 to 93 % of trials."""
_STEPS = 30
_LARGEST_SCALE = 8.0


def places(confidence: Floats, bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of each confidence [N], of equal widths from 0 to 1, as the calibration error has it."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def calibration_error(confidence: Floats, right: NDArray[np.bool_], clusters: Clusters) -> Estimate:
    """Return the expected calibration error (Guo et al., arXiv:1706.04599), with an interval for what it estimates.

    Of few images the error is too large, since chance moves every bin's share and counts to either side; the interval
    is for the true distance over the same bins, so the value may lie above it. Bootstrap percentiles do not cover that
    truth (of 364 images with perfect confidence never: benchmarks/intervals.py). Instead the observed gaps are scaled
    until chance around them gives an error as large as the observed one in few draws, and in nearly all.

    Args:
        confidence: float64 [N], 0 to 1.
        right: [N], whether the answer is.
        clusters: which images belong together.
    """
    images = len(confidence)
    if images == 0:
        return Estimate(value=None)
    of = places(confidence)
    counts = np.bincount(of, minlength=BINS)
    used = counts > 0
    count = counts[used].astype(np.float64)
    gaps = np.bincount(of, confidence - right, minlength=BINS)[used]
    mean_confidence = np.bincount(of, confidence, minlength=BINS)[used] / count
    # One more image that is as often right as its confidence says: a bin of one would else have no variance.
    likely = (np.bincount(of, right, minlength=BINS)[used] + mean_confidence) / (count + 1)
    variance = count * likely * (1 - likely) * design_effect(confidence - right, clusters)
    noise = np.random.default_rng(0).standard_normal((_ROUNDS, len(count)))
    value = expected_calibration_error(confidence, right)

    def quantile(scale: float, level: float) -> float:
        mean = scale * gaps
        spread = np.sqrt(
            variance + mean**2 / count * (1 - count / images)
        )  # the second: how many fall into the bin
        return float(np.quantile(np.abs(mean + spread * noise).sum(axis=1) / images, level))

    def bound(level: float) -> float:
        low, high = 0.0, _LARGEST_SCALE
        if quantile(low, level) >= value:
            return 0.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if quantile(middle, level) < value else (low, middle)
        return min(1.0, high * value)

    return Estimate(value=value, low=bound((1 + _LEVEL) / 2), high=bound((1 - _LEVEL) / 2))
