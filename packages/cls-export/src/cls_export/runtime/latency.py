"""How fast a bundle answers on this machine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cls_export.runtime.classifier import Classifier


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one call of `predict`, and what that makes in images a second.

    Attributes:
        batch: images in a call.
        median: of the calls.
        p95: that 95 % of the calls stay under.
        images_per_second: by the median.
    """

    batch: int
    median: float
    p95: float
    images_per_second: float


def measure(
    classifier: Classifier,
    batches: Sequence[int],
    *,
    height: int = 40,
    width: int = 30,
    seconds: float = 2.0,
) -> list[Latency]:
    """Time calls on random arrays, each batch size for some seconds and at least five calls, behind one that warms up.

    Args:
        classifier: whose `batch_size` is the largest batch that goes through the graph at once.
        batches: images in a call.
        height: of an image in pixels.
        width: of an image in pixels.
        seconds: for each batch size.
    """
    draws = np.random.default_rng(0)
    results = []
    for batch in batches:
        images = [draws.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(batch)]
        classifier.predict(images)
        times: list[float] = []
        end = time.perf_counter() + seconds
        while len(times) < 5 or time.perf_counter() < end:
            started = time.perf_counter()
            classifier.predict(images)
            times.append(1000 * (time.perf_counter() - started))
        median, p95 = np.quantile(times, [0.5, 0.95])
        results.append(Latency(batch, float(median), float(p95), batch / float(median) * 1000))
    return results
