"""Whether two runs differ, asked of the same images.

Compared without pairing, two top-1 of 364 images would have to differ by 5 points to say anything; paired, only the
images count on which one is right and the other wrong.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cls_data import Predictions
from cls_report.content import Estimate
from cls_report.errors import ReportError
from cls_report.intervals import Clusters, Floats, Resamples, bootstrap, design_effect, share
from cls_report.scores import Answers, macro_f1
from cls_report.slices import slices

SIGNIFICANT = 0.05
_POWER = 0.8
_FLIPS = 10_000
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Pair:
    """The answers of two runs for the same images, in the same order, over the same classes."""

    first: Predictions
    second: Predictions

    @property
    def only_first(self) -> NDArray[np.bool_]:
        """Which images [N] the first run alone answers rightly."""
        return _right(self.first) & ~_right(self.second)

    @property
    def only_second(self) -> NDArray[np.bool_]:
        """Which images [N] the second run alone answers rightly."""
        return _right(self.second) & ~_right(self.first)


def pair(first: Predictions, second: Predictions) -> Pair:
    """Bring the second run's predictions into the order of the first one's.

    Raises:
        ReportError: images, labels or classes differ; they are named.
    """
    if set(first.classes) != set(second.classes):
        raise ReportError(
            "the runs know different classes: "
            + _difference(set(map(str, first.classes)), set(map(str, second.classes)), "class(es)")
        )
    keys = [_occurrences(each.ids) for each in (first, second)]
    if set(keys[0]) != set(keys[1]):
        images = [{image for image, _ in each} for each in keys]
        raise ReportError(
            f"the runs were evaluated on different images, so nothing pairs them: "
            f"{_difference(images[0], images[1], 'image(s)')}. "
            "Evaluate both on one data set: uv run python -m cls_train.evaluate RUN_FOLDER"
        )
    place = {key: row for row, key in enumerate(keys[1])}
    rows = np.array([place[key] for key in keys[0]], dtype=np.int64)
    columns = np.array([list(second.classes).index(name) for name in first.classes])
    moved = Predictions(
        ids=second.ids[rows],
        labels=np.argsort(columns)[second.labels[rows]],
        logits=second.logits[rows][:, columns],
        classes=first.classes,
        groups=second.groups[rows],
        metadata=second.metadata[rows],
        sizes=second.sizes[rows],
    )
    if (other := np.flatnonzero(moved.labels != first.labels)).size:
        raise ReportError(
            f"{other.size} image(s) are labelled otherwise in the second run, {first.ids[other[0]]} first: "
            f"{first.classes[first.labels[other[0]]]!r} and {first.classes[moved.labels[other[0]]]!r}"
        )
    return Pair(first, moved)


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
            float(losses[0].mean()), float(losses[1].mean()), _mean(losses[1] - losses[0], clusters, resamples)
        ),
        by_class=_all_on([(name, rows) for name, rows in classes if rows.any()], both, clusters),
        by_slice={key: _all_on(parts, both, clusters) for key, parts in by_key.items()},
        verdict=verdict(overall, names),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the p-value of McNemar's exact test: how likely chance parts so many images at least so unevenly."""
    apart = only_first + only_second
    return min(1.0, 2 * float(stats.binom.cdf(min(only_first, only_second), apart, 0.5))) if apart else 1.0


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


def needed_images(images: int, only_first: int, only_second: int, design_effect: float = 1.0) -> int | None:
    """Return how many images would show a difference as large as this one, in four of five tries.

    Connor, Biometrics 43 (1987), equation 2, for McNemar's test at 5 %; more by the design effect of images that come
    in groups. None where no difference is seen.
    """
    if only_first == only_second:
        return None
    apart, off = (only_first + only_second) / images, abs(only_first - only_second) / images
    z_level, z_power = float(stats.norm.ppf(1 - SIGNIFICANT / 2)), float(stats.norm.ppf(_POWER))
    alone = ((z_level * math.sqrt(apart) + z_power * math.sqrt(max(0.0, apart - off**2))) / off) ** 2
    return math.ceil(alone * design_effect)


def verdict(overall: Difference, names: tuple[str, str]) -> str:
    """Say in a sentence what the comparison says."""
    assert overall.first.value is not None
    assert overall.second.value is not None
    first, second = (f"{name} {value:.1%}" for name, value in
                     zip(names, (overall.first.value, overall.second.value), strict=True))  # fmt: skip
    seen = f"{first}, {second} top-1"
    if overall.p < SIGNIFICANT:
        better = names[1] if overall.only_second > overall.only_first else names[0]
        return f"{better} is better: {seen} on {overall.images} images (p = {overall.p:.2g})."
    needed = needed_images(overall.images, overall.only_first, overall.only_second, overall.design_effect)
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


def _all_on(parts: Sequence[tuple[str, NDArray[np.bool_]]], both: Pair, clusters: Clusters) -> tuple[Difference, ...]:
    found = [_difference_on(name, rows, both, clusters) for name, rows in parts]
    order = sorted(range(len(found)), key=lambda place: found[place].p)
    adjusted, highest = [1.0] * len(found), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, found[place].p * (len(found) - rank)))
        adjusted[place] = highest
    return tuple(replace(each, adjusted_p=p) for each, p in zip(found, adjusted, strict=True))


def _difference_on(name: str, rows: NDArray[np.bool_], both: Pair, clusters: Clusters) -> Difference:
    own = clusters.take(rows)
    first, second = _right(both.first)[rows], _right(both.second)[rows]
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


def _right(predictions: Predictions) -> NDArray[np.bool_]:
    return np.asarray(predictions.logits.argmax(axis=1) == predictions.labels)


def _occurrences(ids: NDArray[np.str_]) -> list[tuple[str, int]]:
    """Number the rows of an image that occurs more than once."""
    seen: dict[str, int] = {}
    keys = []
    for image in map(str, ids):
        seen[image] = seen.get(image, -1) + 1
        keys.append((image, seen[image]))
    return keys


def _difference(first: set[str], second: set[str], what: str) -> str:
    parts = []
    for where, extra in (("the first", sorted(first - second)), ("the second", sorted(second - first))):
        if extra:
            more = f" and {len(extra) - _NAMED} more" if len(extra) > _NAMED else ""
            parts.append(f"{len(extra)} {what} of {where} alone ({', '.join(map(repr, extra[:_NAMED]))}{more})")
    return "; ".join(parts) or "the same ones, in other numbers"
