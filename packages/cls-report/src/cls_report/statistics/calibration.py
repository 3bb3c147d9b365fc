"""Calibration error: the distance between confidence and accuracy."""

import math
from dataclasses import dataclass

import numpy as np

from cls_report.statistics.estimates import Estimate
from cls_report.statistics.intervals import Booleans, Clusters, Floats, Integers, design_effect

BINS = 15
_ROUNDS = 2000
# The gaps are estimates too: at 0.95 the interval covered the truth in 91 to 93% of trials.
_LEVEL = 0.97
_BISECTION_STEPS = 30
_LARGEST_SCALE = 8.0


def confidence_bins(confidence: Floats, bins: int = BINS) -> Integers:
    """Return the bin of each confidence [N], for bins of equal width from 0 to 1."""
    scaled = confidence * bins
    upper_edges = np.ceil(scaled).astype(np.int64)
    last = bins - 1
    return np.clip(upper_edges - 1, 0, last)


def expected_calibration_error(confidence: Floats, correct: Booleans, bins: int = BINS) -> float:
    """Return the expected calibration error (Guo et al., arXiv:1706.04599, equation 3).

    For few images the error is biased upward: chance moves the accuracy of each bin, and its
    distance from the confidence counts in both directions. The bins have equal width.
    """
    images = len(confidence)
    if images == 0:
        return math.nan

    index = confidence_bins(confidence, bins)
    differences = confidence - correct
    gaps = np.bincount(index, differences, minlength=bins)
    distances = np.abs(gaps)
    total = distances.sum()
    return float(total / images)


def estimate_calibration_error(
    confidence: Floats, correct: Booleans, clusters: Clusters
) -> Estimate:
    """Return the expected calibration error with an interval for the true error.

    The true error is the one over the same bins with an infinite number of images. Since the
    estimate is biased upward, it may lie above the interval. Bootstrap percentiles do not cover
    the true error: for 364 images with perfect confidence, never (benchmarks/intervals.py).
    Instead, the observed gaps are scaled until sampling around them gives an error at least as
    large as the observed one rarely (lower bound) or nearly always (upper bound).
    """
    if len(confidence) == 0:
        return Estimate(value=None)
    model = _ErrorModel.from_predictions(confidence, correct, clusters)
    tail = (1 - _LEVEL) / 2
    upper = (1 + _LEVEL) / 2
    return Estimate(
        value=model.observed,
        low=model.bound(upper),
        high=model.bound(tail),
    )


@dataclass(frozen=True, slots=True)
class _ErrorModel:
    """Sampling distribution of the calibration error if the true gaps are scaled observed gaps.

    Attributes:
        observed: The calibration error.
        images: Number of images.
        count: float64 [B], images of each bin that has any.
        gaps: float64 [B], sum of confidence minus correctness in each bin.
        variance: float64 [B], variance of each gap for a fixed number of images in the bin.
        noise: float64 [rounds, B], standard normal.
    """

    observed: float
    images: int
    count: Floats
    gaps: Floats
    variance: Floats
    noise: Floats

    @classmethod
    def from_predictions(
        cls, confidence: Floats, correct: Booleans, clusters: Clusters
    ) -> "_ErrorModel":
        index = confidence_bins(confidence)
        counts = np.bincount(index, minlength=BINS)
        used = counts > 0
        count = counts[used].astype(np.float64)
        differences = confidence - correct
        gaps = np.bincount(index, differences, minlength=BINS)
        total_confidence = np.bincount(index, confidence, minlength=BINS)
        successes = np.bincount(index, correct, minlength=BINS)

        # Add one image that is correct with the probability that its confidence states: a bin of
        # one image would have no variance.
        mean_confidence = total_confidence[used] / count
        accuracy = (successes[used] + mean_confidence) / (count + 1)
        binomial = count * accuracy * (1 - accuracy)
        generator = np.random.default_rng(0)
        return cls(
            observed=expected_calibration_error(confidence, correct),
            images=len(confidence),
            count=count,
            gaps=gaps[used].astype(np.float64),
            variance=binomial * design_effect(differences, clusters),
            noise=generator.standard_normal((_ROUNDS, len(count))),
        )

    def quantile(self, scale: float, level: float) -> float:
        """Return a quantile of the error for true gaps of `scale` times the observed ones."""
        mean = scale * self.gaps
        # The number of images in a bin is random, too.
        share = self.count / self.images
        other_share = 1 - share
        count_variance = mean**2 / self.count * other_share
        variance = self.variance + count_variance
        spread = np.sqrt(variance)
        deviation = spread * self.noise
        gaps = np.abs(mean + deviation)
        errors = gaps.sum(axis=1) / self.images
        return float(np.quantile(errors, level))

    def bound(self, level: float) -> float:
        """Return the true error for which the observed one is the quantile at `level`."""
        low = 0.0
        high = _LARGEST_SCALE
        if self.quantile(low, level) >= self.observed:
            return 0.0
        for _ in range(_BISECTION_STEPS):
            middle = (low + high) / 2
            error = self.quantile(middle, level)
            if error < self.observed:
                low = middle
            else:
                high = middle

        return min(1.0, high * self.observed)
