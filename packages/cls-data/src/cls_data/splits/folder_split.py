"""A split of class folders that have none: stratified, and stable when images are added."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cls_data.annotations.lines import read_lines
from cls_data.annotations.reading import SPLITS, Record, Split
from cls_data.errors import DataError
from cls_data.paths import expand_path
from cls_data.splits.grouping import group_rows, stated_group
from cls_data.splits.stratification import add_missing_classes_to_first
from cls_export.contract.files import write_atomically

_MIN_GROUPS_FOR_TEST = 3
"""A class with two images has one in train and one in valid."""


class FolderSplit(BaseModel):
    """How class folders without a `valid` folder are split.

    Attributes:
        valid: Share of the images for validation.
        test: Share for testing, if there are no split folders at all; 0 for none.
        seed: Seed of the assignment. It is not the seed of the run, so that runs with different
            seeds have the same split.
        record: `split.jsonl` of an earlier run, to keep the split of every image in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    valid: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1
    seed: Annotated[int, Field(ge=0)] = 0
    record: Annotated[Path, AfterValidator(expand_path)] | None = None

    @model_validator(mode="after")
    def _check_train_share(self) -> Self:
        if self.valid + self.test >= 1:
            raise ValueError(
                f"valid={self.valid} and test={self.test} leave nothing for train; expected a sum "
                "below 1"
            )
        return self


class _RecordedImage(BaseModel):
    """One line of a recorded split."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    image: str
    split: Split


def split_records(
    records: Sequence[Record], settings: FolderSplit, *, with_test: bool
) -> dict[Split, list[Record]]:
    """Assign each row to train, valid, or test, stratified by class.

    Rows with a common group or equal bytes stay together. In each class, the groups are ordered by
    a hash of their names: the first ones are test, the last ones valid, as many as the shares ask
    for. So an image keeps its split when others are added or removed, except for a few near the
    borders of the order; with `settings.record`, without exception. A class with a single group is
    in train only, so valid may be missing.

    Raises:
        DataError: An image cannot be read, or the record is invalid.
    """
    groups = group_rows(records, group_by=None)
    keys = _stable_keys(records, groups)
    assigned = _assign(records, keys, settings, with_test=with_test)
    labels = [record.label for record in records]
    subsets = [SPLITS.index(assigned[key]) for key in keys]
    subsets = add_missing_classes_to_first(labels, keys, subsets, min_groups=1)

    recorded = {} if settings.record is None else read_split_record(settings.record)
    recorded_groups: dict[str, Split] = {}
    for record, key in zip(records, keys, strict=True):
        earlier = recorded.get(record.id)
        if earlier is not None and (with_test or earlier != "test"):
            recorded_groups.setdefault(key, earlier)

    splits: dict[Split, list[Record]] = {}
    for record, key, subset in zip(records, keys, subsets, strict=True):
        split = recorded_groups.get(key, SPLITS[subset])
        splits.setdefault(split, []).append(record)
    return splits


def write_split_record(path: Path, splits: Mapping[Split, Iterable[Record]]) -> None:
    """Write the split of each image, sorted by image, for `FolderSplit.record`."""
    lines = []
    for split, records in splits.items():
        for record in records:
            lines.append(json.dumps({"image": record.id, "split": split}, ensure_ascii=False))
    lines.sort()
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def read_split_record(path: Path) -> dict[str, Split]:
    """Read a file of `write_split_record`: the split of each image, by id.

    Raises:
        DataError: The file cannot be read, or a line is invalid.
    """
    splits: dict[str, Split] = {}
    for number, line in read_lines(path):
        try:
            row = _RecordedImage.model_validate_json(line or b"")
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise DataError(
                f"{path}:{number}: not the split of an image ({reason}); expected split.jsonl of "
                'a run, with lines such as {"image": "cat/1.jpg", "split": "valid"}'
            ) from error
        splits[row.image] = row.split
    return splits


def _stable_keys(records: Sequence[Record], groups: Sequence[str]) -> list[str]:
    """Name each group by what does not change when images are added: its stated group or image."""
    names: dict[str, list[str]] = defaultdict(list)
    for record, group in zip(records, groups, strict=True):
        names[group].append(stated_group(record) or f"image {record.id}")
    keys = {group: min(group_names) for group, group_names in names.items()}
    return [keys[group] for group in groups]


def _assign(
    records: Sequence[Record], keys: Sequence[str], settings: FolderSplit, *, with_test: bool
) -> dict[str, Split]:
    """Return the split of each group. A group of several classes counts for its largest one."""
    labels_of_group: dict[str, list[str]] = defaultdict(list)
    for record, key in zip(records, keys, strict=True):
        labels_of_group[key].append(record.label)

    groups_of_class: dict[str, list[str]] = defaultdict(list)
    for key, labels in labels_of_group.items():
        main_label = max(sorted(set(labels)), key=labels.count)
        groups_of_class[main_label].append(key)

    assigned: dict[str, Split] = {}
    for groups in groups_of_class.values():
        groups.sort(key=lambda key: _hash(settings.seed, key))
        sizes = [len(labels_of_group[key]) for key in groups]
        total = sum(sizes)
        test: set[int] = set()
        if with_test and settings.test > 0 and len(groups) >= _MIN_GROUPS_FOR_TEST:
            test = _choose(range(len(groups)), sizes, settings.test * total)
        rest = [index for index in reversed(range(len(groups))) if index not in test]
        valid: set[int] = set()
        if len(rest) > 1:
            valid = _choose(rest, sizes, settings.valid * total)
        for index, key in enumerate(groups):
            assigned[key] = "test" if index in test else "valid" if index in valid else "train"
    return assigned


def _choose(indices: Iterable[int], sizes: Sequence[int], quota: float) -> set[int]:
    """Choose groups in order until their rows are nearest to the quota; at least the smallest one.

    A group that would exceed the quota by more than it lacks is passed over.
    """
    candidates = list(indices)
    chosen: set[int] = set()
    num_rows = 0
    for index in candidates[:-1]:  # one group remains for train
        if num_rows + sizes[index] / 2 <= quota:
            chosen.add(index)
            num_rows += sizes[index]
    if not chosen:
        chosen.add(min(candidates, key=lambda index: sizes[index]))
    return chosen


def _hash(seed: int, key: str) -> bytes:
    text = repr((seed, key))
    return hashlib.sha256(text.encode()).digest()
