"""Class counts for each value of a metadata key, such as real and synthetic crops."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict

from cls_data.annotations.reading import Record

NONE = "(none)"
"""Slice of the rows that do not have the key."""

OTHERS = "(others)"
"""Slice of all values beyond the most frequent ones."""


class MetadataSlices(BaseModel):
    """Class counts for each value of one metadata key, in one split.

    Counts are in index order, zeros included. Values are sorted by frequency, followed by `(none)`
    and `(others)` if they have rows. A value that is not a string is represented by its JSON text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]

    @classmethod
    def from_records(
        cls, classes: Sequence[str], records: Sequence[Record], key: str, limit: int = 20
    ) -> Self:
        """Count the records of one split by the `limit` most frequent values of the key."""
        values = [_metadata_text(record, key) for record in records]
        frequency = Counter(values)
        del frequency[NONE], frequency[OTHERS]
        by_frequency = sorted(frequency, key=lambda value: (-frequency[value], value))
        counts = {}
        for value in [*by_frequency[:limit], NONE, OTHERS]:
            counts[value] = dict.fromkeys(classes, 0)
        for value, record in zip(values, records, strict=True):
            slice_name = value if value in counts else OTHERS
            counts[slice_name][record.label] += 1

        for value in (NONE, OTHERS):
            if not any(counts[value].values()):
                del counts[value]
        return cls(key=key, classes=tuple(classes), counts=counts)

    def total(self, value: str) -> int:
        """Return the number of rows of a slice."""
        counts = self.counts[value]
        return sum(counts.values())


def _metadata_text(record: Record, key: str) -> str:
    if key not in record.metadata:
        return NONE
    value = record.metadata[key]
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
