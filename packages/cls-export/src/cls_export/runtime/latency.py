"""Latency of a classifier on this machine."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cls_export.runtime.classifier import Classifier

_MIN_CALLS = 5


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of a call of `Classifier.predict`: median and 95th percentile of many calls."""

    batch_size: int
    median_ms: float
    p95_ms: float

    @property
    def images_per_second(self) -> float:
        """Throughput at the median."""
        seconds = self.median_ms / 1000
        return self.batch_size / seconds


def measure_latency(
    classifier: Classifier,
    batch_size: int,
    *,
    height: int = 40,
    width: int = 30,
    seconds: float = 2.0,
) -> Latency:
    """Time `predict` on random arrays, after one call to warm up.

    At least five calls are timed. The classifier's own `batch_size` should not be smaller.
    """
    rng = np.random.default_rng(0)
    images: list[NDArray[np.uint8]] = []
    for _ in range(batch_size):
        images.append(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    classifier.predict(images)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _MIN_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        classifier.predict(images)
        duration = time.perf_counter() - start
        times.append(1000 * duration)

    median, p95 = np.quantile(times, [0.5, 0.95])
    return Latency(batch_size, float(median), float(p95))
