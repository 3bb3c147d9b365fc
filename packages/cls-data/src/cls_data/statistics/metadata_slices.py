"""How the classes spread over the values of a metadata key: real and rendered crops, one game and another."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, JsonValue

from cls_data.annotations.reading import Record

NONE = "(none)"
"""The slice of rows that do not have the key."""

OTHERS = "(others)"
"""The slice of all values beyond the most frequent ones."""


class MetadataSlices(BaseModel):
    """Counts by class for each value of one metadata key, in one split.

    Attributes:
        key: the metadata key.
        classes: class names in index order.
        counts: rows of each class by value, in index order, zeros included. Values come most frequent first,
            then `(none)` and `(others)`, where there are such rows. A value that is no string is its JSON text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]

    @classmethod
    def of(
        cls, classes: Sequence[str], records: Sequence[Record], key: str, limit: int = 20
    ) -> Self:
        """Count the records of one split.

        Args:
            classes: class names in index order; every record's label is one of them.
            records: rows of the split.
            key: a key of the rows' metadata.
            limit: values with a slice of their own; of more, the most frequent.
        """
        names = [_name(record, key) for record in records]
        frequency = sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))
        own = [name for name, _ in frequency if name not in (NONE, OTHERS)][:limit]
        order = [*own, NONE, OTHERS]
        counts = {name: dict.fromkeys(classes, 0) for name in order}
        for name, record in zip(names, records, strict=True):
            counts[name if name in counts else OTHERS][record.label] += 1
        filled = {name: by_class for name, by_class in counts.items() if any(by_class.values())}
        return cls(key=key, classes=tuple(classes), counts=filled)

    def total(self, value: str) -> int:
        """Rows of a slice."""
        return sum(self.counts[value].values())


def _name(record: Record, key: str) -> str:
    if key not in record.metadata:
        return NONE
    value: JsonValue = record.metadata[key]
    return (
        value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    )
