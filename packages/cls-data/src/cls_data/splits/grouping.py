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
    images = [f"image {record.id}" for record in records]
    paths = {}

    for record, image in zip(records, images, strict=True):
        paths[image] = record.path
        group = _stated_group(record, key)
        if group is not None:
            groups.union(image, group)

    for image, path in paths.items():
        # A copy under another name is the same image.
        digest = hashlib.sha256(path.read_bytes())
        groups.union(image, f"bytes {digest.hexdigest()}")
    return [groups.find(image) for image in images]


def metadata_key(group_by: str | None) -> str | None:
    """Return the key without an optional `metadata.` prefix."""
    if group_by is None:
        return None
    return group_by.removeprefix("metadata.")


def _check_key_exists(records: Sequence[Record], key: str) -> None:
    ungrouped = [record for record in records if record.group is None]
    names: set[str] = set()
    for record in ungrouped:
        names.update(record.metadata)
    if not ungrouped or key in names:
        return

    hint = "these rows have no metadata"
    if names:
        hint = did_you_mean(key, names)
    raise DataError(f"cannot group by {key!r}: no row has this key in its metadata; {hint}")


def _stated_group(record: Record, key: str | None) -> str | None:
    if record.group is not None:
        return f"group {record.group}"
    value = None if key is None else record.metadata.get(key)
    if value is not None:
        text = json.dumps(value, sort_keys=True)
        return f"metadata {text}"

    stem = roboflow_stem(record.path.name)
    if stem is not None:
        return f"source image {stem}"
    return None


class _UnionFind:
    """Disjoint sets of names. Each set is represented by its first name in sorted order."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def find(self, name: str) -> str:
        """Return the representative of a name's set."""
        parent = self._parents.setdefault(name, name)
        while parent != name:
            grandparent = self._parents[parent]
            self._parents[name] = grandparent
            name = parent
            parent = grandparent
        return name

    def union(self, name: str, other: str) -> None:
        """Join the sets of two names."""
        root = self.find(name)
        other_root = self.find(other)
        first, second = sorted((root, other_root))
        self._parents[second] = first
