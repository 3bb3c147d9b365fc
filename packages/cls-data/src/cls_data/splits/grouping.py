"""Groups of rows that must stay in one split."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cls_data.annotations.reading import Record
from cls_data.annotations.roboflow_names import roboflow_stem
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
        image = f"image {record.id}"
        paths[image] = record.path
        group = stated_group(record, key)
        if group is not None:
            groups.union(image, group)

    for copies in _find_copies(paths):
        for image in copies:
            groups.union(image, copies[0])
    return [groups.find(f"image {record.id}") for record in records]


def _find_copies(paths: Mapping[str, Path]) -> Iterator[list[str]]:
    """Yield the names of each file with equal bytes. Only files of equal size are read."""
    names_by_size: dict[int, list[str]] = defaultdict(list)
    for name, path in paths.items():
        names_by_size[_file_size(path)].append(name)

    for names in names_by_size.values():
        if len(names) == 1:
            continue
        names_by_digest: dict[bytes, list[str]] = defaultdict(list)
        for name in names:
            names_by_digest[_hash_file(paths[name])].append(name)
        for copies in names_by_digest.values():
            if len(copies) > 1:
                yield copies


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _hash_file(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


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


def stated_group(record: Record, key: str | None = None) -> str | None:
    """Return a row's own group: its `group`, metadata at `key`, or Roboflow source image."""
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
