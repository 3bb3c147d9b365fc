"""Whether two runs differ, asked of the same images.

Compared without pairing, two top-1 of 364 images would have to differ by 5 points to say anything; paired, only the
images count on which one is right and the other wrong.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cls_report.page.blocks import Estimate
from cls_report.statistics.confusion_counts import macro_f1
from cls_report.statistics.evaluated import Answers
from cls_report.statistics.intervals import (
    Clusters,
    Floats,
    Resamples,
    bootstrap,
    design_effect,
    share,
)
from cls_report.statistics.paired_tests import SIGNIFICANT, mcnemar, needed_images, sign_flip
from cls_report.statistics.pairing import Pair, right
from cls_report.statistics.slices import slices


@dataclass(frozen=True, slots=True)
class Difference:
    """How two runs differ on some images.

    Attributes:
        name: of the images: a class, a slice.
        images: how many.
        first: share that the first run answers rightly, and `second` that of the second.
        only_first: images that the first alone answers rightly, and `only_second` those of the second.
        difference: second minus first, with its paired interval.
        design_effect: how much more the difference varies because images come in groups; 1 where they do not.
        p: of McNemar's exact test; of the groups' differences with random signs where images come in groups.
        adjusted_p: for all that is compared beside it (Holm, Scandinavian Journal of Statistics 6, 1979).
    """

    name: str
    images: int
    first: Estimate
    second: Estimate
    only_first: int
    only_second: int
    difference: Estimate
    design_effect: float
    p: float
    adjusted_p: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of all images: of the first run, of the second, and second minus first with its paired interval."""

    first: float
    second: float
    difference: Estimate


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that tells two runs apart.

    Attributes:
        overall: on all images.
        macro_f1: of both; loss: likewise, in nats.
        by_class: for every class with an image.
        by_slice: by key of the slices.
        verdict: the sentence to read if only one is read.
    """

    overall: Difference
    macro_f1: Figure
    loss: Figure
    by_class: tuple[Difference, ...]
    by_slice: dict[str, tuple[Difference, ...]]
    verdict: str

    @property
    def distinguishable(self) -> bool:
        """Whether chance alone would seldom (in one of twenty cases) part two equal runs so far."""
        return self.overall.p < SIGNIFICANT


def compare(both: Pair, names: tuple[str, str] = ("the first", "the second")) -> Comparison:
    """Compare two runs."""
    first, second = Answers.of(both.first), Answers.of(both.second)
    clusters = first.clusters
    resamples = Resamples.draw(clusters)
    everything = np.ones(len(first.truth), bool)
    overall = _difference_on("all images", everything, both, clusters)
    classes = [(name, first.truth == index) for index, name in enumerate(first.classes)]
    by_key: dict[str, list[tuple[str, NDArray[np.bool_]]]] = {}
    for each in slices(both.first):
        by_key.setdefault(each.key, []).append((each.value, each.rows))
    drawn = macro_f1(second, resamples.weights) - macro_f1(first, resamples.weights)
    whole = np.ones((1, len(first.truth)))
    f1 = [float(macro_f1(each, whole)[0]) for each in (first, second)]
    losses = _losses(first), _losses(second)
    return Comparison(
        overall=overall,
        macro_f1=Figure(f1[0], f1[1], bootstrap(f1[1] - f1[0], drawn)),
        loss=Figure(
            float(losses[0].mean()),
            float(losses[1].mean()),
            _mean(losses[1] - losses[0], clusters, resamples),
        ),
        by_class=_all_on([(name, rows) for name, rows in classes if rows.any()], both, clusters),
        by_slice={key: _all_on(parts, both, clusters) for key, parts in by_key.items()},
        verdict=verdict(overall, names),
    )


def verdict(overall: Difference, names: tuple[str, str]) -> str:
    """Say in a sentence what the comparison says."""
    assert overall.first.value is not None
    assert overall.second.value is not None
    first, second = (
        f"{name} {value:.1%}"
        for name, value in zip(names, (overall.first.value, overall.second.value), strict=True)
    )
    seen = f"{first}, {second} top-1"
    if overall.p < SIGNIFICANT:
        better = names[1] if overall.only_second > overall.only_first else names[0]
        return f"{better} is better: {seen} on {overall.images} images (p = {overall.p:.2g})."
    needed = needed_images(
        overall.images, overall.only_first, overall.only_second, overall.design_effect
    )
    if needed is None:
        more = "no number of images would tell runs apart that are this equal"
    elif needed <= overall.images:
        more = "as many again might tell them apart"
    else:
        more = f"about {_rounded(needed):,} would be needed to tell so small a difference"
    return f"Not distinguishable on {overall.images} images: {seen} (p = {overall.p:.2g}); {more}."


def _rounded(number: int) -> int:
    digits = max(0, len(str(number)) - 2)
    step = int(10**digits)
    return math.ceil(number / step) * step


def _all_on(
    parts: Sequence[tuple[str, NDArray[np.bool_]]], both: Pair, clusters: Clusters
) -> tuple[Difference, ...]:
    found = [_difference_on(name, rows, both, clusters) for name, rows in parts]
    order = sorted(range(len(found)), key=lambda place: found[place].p)
    adjusted, highest = [1.0] * len(found), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, found[place].p * (len(found) - rank)))
        adjusted[place] = highest
    return tuple(replace(each, adjusted_p=p) for each, p in zip(found, adjusted, strict=True))


def _difference_on(
    name: str, rows: NDArray[np.bool_], both: Pair, clusters: Clusters
) -> Difference:
    own = clusters.take(rows)
    first, second = right(both.first)[rows], right(both.second)[rows]
    gains = second.astype(np.float64) - first
    only_first, only_second = int((gains < 0).sum()), int((gains > 0).sum())
    p = sign_flip(own.sums(gains)) if own.grouped else mcnemar(only_first, only_second)
    difference = _mean(gains, own, Resamples.draw(own))
    return Difference(
        name=name,
        images=int(rows.sum()),
        first=share(first, own),
        second=share(second, own),
        only_first=only_first,
        only_second=only_second,
        difference=difference,
        design_effect=design_effect(gains, own),
        p=p,
        adjusted_p=p,
    )


def _mean(values: Floats, clusters: Clusters, resamples: Resamples) -> Estimate:
    drawn = (resamples.weights @ values) / np.maximum(1e-12, resamples.weights.sum(axis=1))
    return bootstrap(float(values.mean()), drawn, clusters.sums(values - values.mean()))


def _losses(answers: Answers) -> Floats:
    return -answers.log_probabilities[np.arange(len(answers.truth)), answers.truth]
