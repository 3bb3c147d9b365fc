"""Slices: subsets of the evaluated images by image size and by metadata."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from cls_data import Predictions
from cls_data.statistics.metadata_slices import NONE, OTHERS
from cls_report.statistics.intervals import Booleans

SIZE_KEY = "shorter side (px)"
_MAX_VALUES = 12
_LARGEST_INTEGER = 2**53
"""Larger ones are treated as text: floating-point numbers cannot tell them apart."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The images whose metadata or size has one value: its text, and a mask bool [N]."""

    value: str
    rows: Booleans


def slice_predictions(predictions: Predictions) -> dict[str, tuple[Slice, ...]]:
    """Return slices by the shorter side of the image file and by each metadata key.

    Every image is in exactly one slice of each key. Numbers with more than twelve values are
    binned by their quartiles. Of other values, the twelve most frequent have their own slice. A
    key with a single slice is left out.
    """
    rows = range(len(predictions))
    metadata = [predictions.row_metadata(row) for row in rows]
    keys: set[str] = set().union(*metadata)
    by_key = {}
    if predictions.sizes.any():
        sides = predictions.sizes.min(axis=1)
        by_key[SIZE_KEY] = _slice_by_value(sides.tolist())

    for key in sorted(keys):
        values = [row.get(key) for row in metadata]
        by_key[key] = _slice_by_value(values)

    return {key: slices for key, slices in by_key.items() if len(slices) > 1}


def _slice_by_value(values: Sequence[JsonValue]) -> tuple[Slice, ...]:
    names = [_text(value) for value in values]
    is_numeric = all(map(_is_number_or_none, values))
    distinct = set(names) - {NONE}
    if is_numeric and len(distinct) > _MAX_VALUES:
        names = _quartile_names(values)
    frequent = _most_frequent(names)
    if is_numeric:
        frequent.sort(key=_first_number)

    rows_by_name: dict[str, list[int]] = {name: [] for name in (*frequent, OTHERS, NONE)}
    for row, name in enumerate(names):
        key = name if name in rows_by_name else OTHERS
        rows_by_name[key].append(row)

    slices = []
    for name, rows in rows_by_name.items():
        if rows:
            mask = np.zeros(len(names), np.bool_)
            mask[rows] = True
            slices.append(Slice(name, mask))

    return tuple(slices)


def _most_frequent(names: Sequence[str]) -> list[str]:
    """Return the most frequent names, most frequent first."""
    counts = Counter(names)
    del counts[NONE]
    ordered = sorted(counts)
    ordered.sort(key=lambda name: counts[name], reverse=True)
    return ordered[:_MAX_VALUES]


def _is_number_or_none(value: JsonValue) -> bool:
    if value is None:
        return True
    if isinstance(value, bool):
        return False
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) < _LARGEST_INTEGER


def _first_number(name: str) -> float:
    """Return the number itself, or the lower end of a range."""
    start, _, _ = name.partition(" to ")
    return float(start)


def _quartile_names(values: Sequence[JsonValue]) -> list[str]:
    """Return the range of each value's quartile bin, such as `3 to 7.5`."""
    numbers = np.array(values, np.float64)  # None becomes NaN
    has_value = ~np.isnan(numbers)
    quartiles = np.quantile(numbers[has_value], [0.25, 0.5, 0.75])
    bins = np.searchsorted(quartiles, numbers, side="left")
    names = [NONE] * len(numbers)
    for index in np.unique(bins[has_value]):
        in_bin = has_value & (bins == index)
        low = numbers[in_bin].min()
        high = numbers[in_bin].max()
        for row in np.flatnonzero(in_bin):
            names[row] = f"{low:g} to {high:g}"

    return names


def _text(value: JsonValue) -> str:
    if value is None:
        return NONE
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
