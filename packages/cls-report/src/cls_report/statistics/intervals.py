"""What a figure of few images is worth: 95 % intervals.

Images of one group (a game, a video) resemble each other, so groups count, not images: shares have their number of
images reduced by the design effect, and the bootstrap draws whole groups.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cls_report.page.blocks import Estimate

LEVEL = 0.95

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def wilson(right: float, images: float, level: float = LEVEL) -> Estimate:
    """Return the share `right` of `images` with its interval (Wilson, JASA 22, 1927); no value for no image."""
    if images == 0:
        return Estimate(value=None)
    share, z2 = right / images, float(stats.norm.ppf((1 + level) / 2)) ** 2
    middle = (share + z2 / (2 * images)) / (1 + z2 / images)
    half = (
        math.sqrt(z2)
        * math.sqrt(share * (1 - share) / images + z2 / (4 * images**2))
        / (1 + z2 / images)
    )
    low = middle - half if right > 0 else 0.0  # else rounding would leave a trace
    high = middle + half if right < images else 1.0
    return Estimate(value=share, low=max(0.0, low), high=min(1.0, high))


def in_words(estimate: Estimate) -> str:
    """Write a share with its interval: 89.0 % (85.4-91.8)."""
    if estimate.value is None:
        return "-"
    bounds = (
        ""
        if estimate.low is None or estimate.high is None
        else f" ({estimate.low:.1%}-{estimate.high:.1%})"
    )
    return f"{estimate.value:.1%}{bounds}".replace("%-", "-").replace("%", " %").replace(" %)", ")")


def in_points(difference: Estimate) -> str:
    """Write a difference of shares with its interval in points: +1.1 (-0.8 to +3.0)."""
    if difference.value is None:
        return "-"
    bounds = ""
    if difference.low is not None and difference.high is not None:
        bounds = f" ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
    return f"{100 * difference.value:+.1f}{bounds} points"


@dataclass(frozen=True, slots=True)
class Clusters:
    """Which images belong together.

    Attributes:
        of: int64 [N], the group of each image, 0 to `count` - 1.
        count: number of groups.
        grouped: whether any two images share one.
    """

    of: Integers
    count: int

    @classmethod
    def from_groups(cls, groups: NDArray[np.str_]) -> "Clusters":
        """Number the groups [N]; each image whose group is empty is one of its own."""
        named = groups != ""
        _, places = np.unique(groups[named], return_inverse=True)
        of = np.empty(len(groups), np.int64)
        of[named] = places
        names = int(places.max()) + 1 if len(places) else 0
        of[~named] = names + np.arange((~named).sum())
        return cls(of, names + int((~named).sum()))

    @property
    def grouped(self) -> bool:
        """Whether any two images share a group."""
        return self.count < len(self.of)

    def take(self, rows: NDArray[np.bool_]) -> "Clusters":
        """Return the clusters of some images."""
        found, of = np.unique(self.of[rows], return_inverse=True)
        return Clusters(of.astype(np.int64), len(found))

    def sums(self, values: Floats) -> Floats:
        """Add values [N] or [N, K] up by group: [count] or [count, K]."""
        if not self.grouped:
            ordered = np.empty_like(values)
            ordered[self.of] = values
            return ordered
        sums = np.zeros((self.count, *values.shape[1:]))
        np.add.at(sums, self.of, values)
        return sums


def share(right: NDArray[np.bool_], clusters: Clusters) -> Estimate:
    """Return the share of images [N] that are right, by Wilson's interval of as many images as the groups are worth.

    The variance of a share of clustered images is that of a ratio of sums over groups; what it is more than the
    binomial's, the design effect, reduces the number of images, and the quantile is Student's for the groups (Korn and
    Graubard, Survey Methodology 24, 1998, with Wilson's interval for the exact one).
    """
    images = len(right)
    if images == 0 or not clusters.grouped:
        return wilson(int(right.sum()), images)
    value = float(right.mean())
    if clusters.count < 2:
        return Estimate(value=value)
    residuals = clusters.sums(right.astype(np.float64) - value)
    variance = clusters.count / (clusters.count - 1) * float((residuals**2).sum()) / images**2
    binomial = value * (1 - value) / images
    effect = max(1.0, variance / binomial) if binomial > 0 else images / clusters.count
    normal = float(stats.norm.ppf((1 + LEVEL) / 2))
    student = float(stats.t.ppf((1 + LEVEL) / 2, clusters.count - 1))
    worth = max(1.0, images / effect * (normal / student) ** 2)
    bounds = wilson(value * worth, worth)
    return Estimate(value=value, low=bounds.low, high=bounds.high)


def design_effect(values: Floats, clusters: Clusters) -> float:
    """Return how much more the variance of a mean of values [N] is because images come in groups; at least 1."""
    if not clusters.grouped or clusters.count < 2:
        return 1.0
    centered = values - values.mean()
    alone = float((centered**2).sum())
    return max(1.0, float((clusters.sums(centered) ** 2).sum()) / alone) if alone > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Resamples:
    """How often each image counts in each of many samples, drawn with replacement from the groups.

    Attributes:
        weights: float64 [rounds, N].
    """

    weights: Floats

    @classmethod
    def draw(cls, clusters: Clusters, *, rounds: int | None = None, seed: int = 0) -> "Resamples":
        """Draw samples of as many groups as there are; by default fewer of very many images, and at least 200."""
        images = len(clusters.of)
        rounds = min(1000, max(200, 10_000_000 // max(1, images))) if rounds is None else rounds
        counts = np.random.default_rng(seed).multinomial(
            clusters.count, np.full(clusters.count, 1 / max(1, clusters.count)), size=rounds
        )
        return cls(counts.astype(np.float64)[:, clusters.of])


def bootstrap(value: float, drawn: Floats, influence: Floats | None = None) -> Estimate:
    """Return a figure with its bias-corrected and accelerated bootstrap interval (Efron, JASA 82, 1987: BCa).

    Args:
        value: of the images themselves.
        drawn: float64 [rounds], of the samples; not finite where a sample has no such figure.
        influence: float64 [groups], how much each group moves it, for the acceleration; None for none.
    """
    drawn = drawn[np.isfinite(drawn)]
    if not math.isfinite(value):
        return Estimate(value=None)
    if len(drawn) < 2:
        return Estimate(value=value)
    below = float((drawn < value).mean() + (drawn <= value).mean()) / 2
    bias = float(stats.norm.ppf(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn))))
    acceleration = 0.0
    if influence is not None and (spread := float((influence**2).sum())) > 0:
        acceleration = float((influence**3).sum()) / (6 * spread**1.5)
    tail = float(stats.norm.ppf((1 - LEVEL) / 2))
    levels = [
        float(stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))))
        for z in (tail, -tail)
    ]
    low, high = np.quantile(drawn, levels)
    return Estimate(value=value, low=float(low), high=float(high))
