"""95% confidence intervals for independent and for clustered images.

Images of one game or video resemble each other. Intervals of proportions therefore divide the
number of images by the design effect, and the bootstrap draws whole clusters.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cls_report.statistics.estimates import Estimate

CONFIDENCE_LEVEL = 0.95

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Clusters:
    """Groups of dependent images, such as all crops of one game.

    Attributes:
        index: int64 [N], the cluster of each image, 0 to `count` - 1.
        count: Number of clusters.
    """

    index: Integers
    count: int

    @classmethod
    def from_groups(cls, groups: NDArray[np.str_]) -> "Clusters":
        """Number the groups [N]. An image with an empty group is a cluster by itself."""
        has_group = groups != ""
        names, positions = np.unique(groups[has_group], return_inverse=True)
        named = len(names)
        count = named + len(groups) - len(positions)
        index = np.empty(len(groups), np.int64)
        index[has_group] = positions
        index[~has_group] = np.arange(named, count)
        return cls(index, count)

    @property
    def is_grouped(self) -> bool:
        """Whether any two images share a cluster."""
        return self.count < len(self.index)

    def subset(self, rows: Booleans) -> "Clusters":
        """Return the clusters of the selected images, renumbered."""
        selected = self.index[rows]
        used, index = np.unique(selected, return_inverse=True)
        count = len(used)
        return Clusters(index.astype(np.int64), count)

    def sum_by_cluster(self, values: Floats) -> Floats:
        """Sum values [N] or [N, K] within each cluster: [count] or [count, K]."""
        if not self.is_grouped:
            ordered = np.empty_like(values)
            ordered[self.index] = values
            return ordered

        columns = values.shape[1:]
        shape = (self.count, *columns)
        sums = np.zeros(shape)
        np.add.at(sums, self.index, values)
        return sums


def wilson_interval(successes: float, count: float, level: float = CONFIDENCE_LEVEL) -> Estimate:
    """Return a proportion with Wilson's interval (JASA 22, 1927); no value if `count` is 0."""
    if count == 0:
        return Estimate(value=None)

    share = successes / count
    upper = (1 + level) / 2
    z = float(stats.norm.ppf(upper))
    z2 = z**2
    shrinkage = 1 + z2 / count
    shift = z2 / (2 * count)
    center = (share + shift) / shrinkage
    variance = share * (1 - share) / count
    correction = z2 / (4 * count**2)
    deviation = math.sqrt(variance + correction)
    half = math.sqrt(z2) * deviation / shrinkage

    # Rounding would leave a bound slightly inside 0 or 1.
    low = center - half if successes > 0 else 0.0
    high = center + half if successes < count else 1.0
    return Estimate(value=share, low=max(0.0, low), high=min(1.0, high))


def proportion_interval(successes: Booleans, clusters: Clusters) -> Estimate:
    """Return the share of successes [N] with Wilson's interval for the effective sample size.

    The variance of a share of clustered images is that of a ratio of sums over clusters. The
    design effect, its ratio to the binomial variance, reduces the number of images. The quantile
    is Student's for the number of clusters (Korn and Graubard, Survey Methodology 24, 1998, with
    Wilson's interval in place of the exact one).
    """
    images = len(successes)
    if images == 0 or not clusters.is_grouped:
        return wilson_interval(int(successes.sum()), images)

    value = float(successes.mean())
    count = clusters.count
    if count < 2:
        return Estimate(value=value)

    residuals = successes.astype(np.float64) - value
    sums = clusters.sum_by_cluster(residuals)
    squares = float((sums**2).sum())
    freedom = count - 1
    variance = count / freedom * squares / images**2
    binomial = value * (1 - value) / images
    effect = images / count
    if binomial > 0:
        effect = max(1.0, variance / binomial)

    level = (1 + CONFIDENCE_LEVEL) / 2
    normal = float(stats.norm.ppf(level))
    student = float(stats.t.ppf(level, freedom))
    ratio = normal / student
    effective = max(1.0, images / effect * ratio**2)
    bounds = wilson_interval(value * effective, effective)
    return bounds.model_copy(update={"value": value})


def design_effect(values: Floats, clusters: Clusters) -> float:
    """Return how much clustering inflates the variance of the mean of values [N]; at least 1."""
    if not clusters.is_grouped or clusters.count < 2:
        return 1.0

    centered = values - values.mean()
    independent = float((centered**2).sum())
    if independent <= 0:
        return 1.0

    sums = clusters.sum_by_cluster(centered)
    clustered = float((sums**2).sum())
    return max(1.0, clustered / independent)


def bootstrap_weights(clusters: Clusters, *, rounds: int | None = None, seed: int = 0) -> Floats:
    """Return how often each image is in each bootstrap sample of clusters: float64 [rounds, N].

    The default number of samples is 1,000, and fewer for more than 10,000 images, but at least 200.
    """
    count = clusters.count
    if rounds is None:
        images = max(1, len(clusters.index))
        rounds = 10_000_000 // images
        rounds = min(1000, max(200, rounds))
    generator = np.random.default_rng(seed)
    probability = 1 / max(1, count)
    probabilities = np.full(count, probability)
    counts = generator.multinomial(count, probabilities, size=rounds)
    weights = counts.astype(np.float64)
    return weights[:, clusters.index]


def bca_interval(value: float, resampled: Floats, influence: Floats | None = None) -> Estimate:
    """Return a value with its BCa bootstrap interval (Efron, JASA 82, 1987).

    Args:
        value: The statistic of all images.
        resampled: float64 [rounds], the statistic of each bootstrap sample; non-finite values
            are left out.
        influence: float64 [clusters], the influence of each cluster on the statistic. Without it,
            the interval is corrected for bias only.
    """
    if not math.isfinite(value):
        return Estimate(value=None)

    is_finite = np.isfinite(resampled)
    resampled = resampled[is_finite]
    rounds = len(resampled)
    if rounds < 2:
        return Estimate(value=value)

    below = (resampled < value).mean()
    not_above = (resampled <= value).mean()
    rank = float(below + not_above) / 2
    margin = 1 / rounds
    rank = np.clip(rank, margin, 1 - margin)
    bias = float(stats.norm.ppf(rank))
    acceleration = _acceleration(influence)
    lower = (1 - CONFIDENCE_LEVEL) / 2
    tail = float(stats.norm.ppf(lower))
    levels = []
    for z in (tail, -tail):
        shifted = bias + z
        corrected = bias + shifted / (1 - acceleration * shifted)
        levels.append(float(stats.norm.cdf(corrected)))

    low, high = np.quantile(resampled, levels)
    return Estimate(value=value, low=float(low), high=float(high))


def _acceleration(influence: Floats | None) -> float:
    if influence is None:
        return 0.0
    squares = float((influence**2).sum())
    if squares <= 0:
        return 0.0
    cubes = float((influence**3).sum())
    scale: float = 6 * squares**1.5
    return cubes / scale


def mean_interval(values: Floats, clusters: Clusters, weights: Floats) -> Estimate:
    """Return the mean of values [N] with its bootstrap interval.

    The weights [rounds, N] are those of `bootstrap_weights`.
    """
    if len(values) == 0:
        return Estimate(value=None)

    mean = float(values.mean())
    totals = weights.sum(axis=1)
    totals = np.maximum(1e-12, totals)
    sums = weights @ values
    resampled = sums / totals

    deviations = values - mean
    influence = clusters.sum_by_cluster(deviations)
    return bca_interval(mean, resampled, influence)
