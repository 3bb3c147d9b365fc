"""Variation of a metric across runs that differ only in their seed."""

import math
import statistics
from dataclasses import dataclass

from scipy import stats

from cls_report.statistics.estimates import Estimate
from cls_report.statistics.intervals import CONFIDENCE_LEVEL


@dataclass(frozen=True, slots=True)
class SeedVariation:
    """The values of a metric in two or more runs that differ only in their seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> Estimate:
        """The mean over seeds, with Student's interval for these images."""
        mean = statistics.mean(self.values)
        root = math.sqrt(len(self.values))
        half = self._t_quantile() * self.deviation / root
        return Estimate(
            value=mean,
            low=mean - half,
            high=mean + half,
        )

    @property
    def deviation(self) -> float:
        """The standard deviation over seeds."""
        return statistics.stdev(self.values)

    @property
    def noise_floor(self) -> float:
        """The difference that two runs exceed in one of twenty cases by their seeds alone."""
        factor = self._t_quantile() * math.sqrt(2)
        return factor * self.deviation

    def _t_quantile(self) -> float:
        freedom = len(self.values) - 1
        level = (1 + CONFIDENCE_LEVEL) / 2
        return float(stats.t.ppf(level, freedom))
