"""The answers of two runs for the same images, brought together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cls_data import Predictions
from cls_report.errors import ReportError

_NAMED = 10
"""Differences that a message names."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The answers of two runs for the same images, in the same order, over the same classes."""

    first: Predictions
    second: Predictions

    @property
    def only_first(self) -> NDArray[np.bool_]:
        """Which images [N] the first run alone answers rightly."""
        return right(self.first) & ~right(self.second)

    @property
    def only_second(self) -> NDArray[np.bool_]:
        """Which images [N] the second run alone answers rightly."""
        return right(self.second) & ~right(self.first)


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
            "Evaluate both on one data set: uv run python -m cls_train.stages.evaluate RUN_FOLDER"
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
            f"{other.size} image(s) are labeled otherwise in the second run, {first.ids[other[0]]} first: "
            f"{first.classes[first.labels[other[0]]]!r} and {first.classes[moved.labels[other[0]]]!r}"
        )
    return Pair(first, moved)


def right(predictions: Predictions) -> NDArray[np.bool_]:
    """Say which images [N] are answered rightly."""
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
    for where, extra in (
        ("the first", sorted(first - second)),
        ("the second", sorted(second - first)),
    ):
        if extra:
            more = f" and {len(extra) - _NAMED} more" if len(extra) > _NAMED else ""
            parts.append(
                f"{len(extra)} {what} of {where} alone ({', '.join(map(repr, extra[:_NAMED]))}{more})"
            )
    return "; ".join(parts) or "the same ones, in other numbers"
