"""Groups of rows that must stay in one split."""

import hashlib
import json
from collections.abc import Sequence

from cls_data.annotations.reading import Record
from cls_data.convert.roboflow import roboflow_stem
from cls_data.errors import DataError
from cls_export.contract.suggestions import did_you_mean


def group_rows(records: Sequence[Record], group_by: str | None) -> list[str]:
    """Return the group of each row.

    Rows are joined, directly or through other rows, if they have the same group or the same image
    (by path or by content). A row's group is its `group` key, else its metadata at `group_by`, else
    the source image in a Roboflow file name.

    Raises:
        DataError: No row without a group has `group_by` in its metadata.
    """
    key = metadata_key(group_by)
    if key is not None:
        _check_key_exists(records, key)
    groups = _UnionFind()
    paths = {}
    for record in records:
        paths[record.id] = record.path
        groups.union(f"image {record.id}", _stated_group(record, key) or f"image {record.id}")
    for image, path in paths.items():
        # A copy under another name is the same image.
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        groups.union(f"image {image}", f"bytes {digest}")
    return [groups.find(f"image {record.id}") for record in records]


def metadata_key(group_by: str | None) -> str | None:
    """Return the key without an optional `metadata.` prefix."""
    return None if group_by is None else group_by.removeprefix("metadata.")


def _check_key_exists(records: Sequence[Record], key: str) -> None:
    ungrouped = [record for record in records if record.group is None]
    names: set[str] = set()
    for record in ungrouped:
        names.update(record.metadata)
    if ungrouped and key not in names:
        hint = did_you_mean(key, names) if names else "these rows have no metadata"
        raise DataError(f"group_by {key!r}: no row has this key in its metadata; {hint}")


def _stated_group(record: Record, key: str | None) -> str | None:
    if record.group is not None:
        return f"group {record.group}"
    if key is not None and record.metadata.get(key) is not None:
        return f"metadata {json.dumps(record.metadata[key], sort_keys=True)}"
    stem = roboflow_stem(record.path.name)
    return None if stem is None else f"source image {stem}"


class _UnionFind:
    """Disjoint sets of names. Each set is represented by its first name in sorted order."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def find(self, name: str) -> str:
        """Return the representative of a name's set."""
        while (parent := self._parents.setdefault(name, name)) != name:
            self._parents[name] = self._parents[parent]
            name = parent
        return name

    def union(self, name: str, other: str) -> None:
        """Join the sets of two names."""
        first, second = sorted((self.find(name), self.find(other)))
        self._parents[second] = first
