"""Parts of an evaluation: images of one size, one source, one value of whatever the rows say of them."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from cls_data import Predictions
from cls_data.statistics.metadata_slices import NONE, OTHERS

SIZE = "shorter side, px"
_MOST_VALUES = 12
_PARTS = 4
_FEWEST = 2
"""Slices that make a key worth a table."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Some images of an evaluation.

    Attributes:
        key: what they share, such as a key of the metadata.
        value: how it is there, as text.
        rows: bool [N].
    """

    key: str
    value: str
    rows: NDArray[np.bool_]


def slices(predictions: Predictions) -> tuple[Slice, ...]:
    """Return the slices by size of the image file and by each key of the metadata; an image is in one of each key.

    Numbers of more than twelve values are cut at their quartiles; of other values the twelve most frequent have a slice
    each. A key whose images are all alike has none.
    """
    found: list[Slice] = []
    if predictions.sizes.any():
        found += _by_value(SIZE, [int(side) for side in predictions.sizes.min(axis=1)])
    metadata = [predictions.metadata_of(row) for row in range(len(predictions))]
    for key in sorted({key for each in metadata for key in each}):
        found += _by_value(key, [each.get(key) for each in metadata])
    return tuple(found)


def _by_value(key: str, values: Sequence[JsonValue]) -> list[Slice]:
    present = [value for value in values if value is not None]
    numeric = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in present
    )
    if numeric and len(set(map(str, present))) > _MOST_VALUES:
        names = _quartiles(values)
    else:
        names = [_text(value) for value in values]
    frequency = sorted(
        Counter(name for name in names if name != NONE).items(),
        key=lambda item: (-item[1], item[0]),
    )
    kept = {name for name, _ in frequency[:_MOST_VALUES]}
    of = np.array(
        [name if name in kept or name == NONE else OTHERS for name in names], dtype=np.str_
    )
    order = [
        name
        for name in dict.fromkeys(_in_order(names) if numeric else [name for name, _ in frequency])
        if name in kept
    ]
    found = [Slice(key, name, of == name) for name in (*order, OTHERS, NONE) if (of == name).any()]
    return found if len(found) >= _FEWEST else []


def _in_order(names: Sequence[str]) -> list[str]:
    """Sort names of numbers or of ranges by their first number."""
    return sorted(
        {name for name in names if name != NONE}, key=lambda name: float(name.split(" to ")[0])
    )


def _quartiles(values: Sequence[JsonValue]) -> list[str]:
    numbers = np.array(
        [float(value) if isinstance(value, int | float) else np.nan for value in values]
    )
    known = numbers[~np.isnan(numbers)]
    edges = np.quantile(known, np.linspace(0, 1, _PARTS + 1)[1:-1])
    part = np.searchsorted(edges, numbers, side="left")
    names = {}
    for index in np.unique(part[~np.isnan(numbers)]):
        own = numbers[(part == index) & ~np.isnan(numbers)]
        names[int(index)] = f"{own.min():g} to {own.max():g}"
    return [
        NONE if np.isnan(number) else names[int(index)]
        for number, index in zip(numbers, part, strict=True)
    ]


def _text(value: JsonValue) -> str:
    if value is None:
        return NONE
    return (
        value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    )
