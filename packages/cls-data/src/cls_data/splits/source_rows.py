"""Rows of existing splits, read and grouped to be split again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cls_data.annotations.quarantine import Quarantine
from cls_data.annotations.reading import Record, Split, raise_for_bad_rows
from cls_data.data_source import Layout, scan_data
from cls_data.errors import DataError
from cls_data.splits.grouping import group_rows, metadata_key
from cls_data.synthetic.top_up import RENDERED_FOLDER


@dataclass(frozen=True, slots=True)
class SourceRows:
    """Rows to assign to new splits, with their groups; rows that keep their split; and notes."""

    records: list[Record]
    groups: list[str]
    fixed: dict[Split, list[Record]]
    notes: list[str]

    @property
    def labels(self) -> list[str]:
        """Class of each row to assign."""
        return [record.label for record in self.records]


def read_source_rows(
    base: Path,
    group_by: str | None,
    keep_test: bool,
    quarantine: Quarantine | None,
    layout: Layout = "auto",
) -> SourceRows:
    """Read and group the rows of all splits; see `write_splits` for the arguments."""
    data = scan_data(base, layout=layout, quarantine=quarantine)
    by_split: dict[Split, list[Record]] = {}
    for split, scanned in data.splits.items():
        raise_for_bad_rows(scanned, base, split)
        by_split[split] = scanned.records

    test: list[Record] = []
    if keep_test:
        test = by_split.pop("test", [])
        if not test or data.is_split_made:
            raise DataError(f"{base}: no test split to keep; expected rows in test/")

    all_records = [record for records in by_split.values() for record in records]
    if not all_records:
        raise DataError(f"{base}: no rows to split; expected *.jsonl files in train/ or valid/")

    records, rendered = separate_rendered(all_records)
    all_groups = group_rows([*records, *test], group_by)
    groups = all_groups[: len(records)]
    test_groups = all_groups[len(records) :]
    rows = SourceRows(
        records=records,
        groups=groups,
        fixed={"train": rendered, "test": test},
        notes=list(data.skipped_notes),
    )
    notes = _notes_on_groups(rows, test_groups, group_by)
    rows.notes.extend(notes)
    return rows


def _notes_on_groups(
    rows: SourceRows, test_groups: Sequence[str], group_by: str | None
) -> Iterator[str]:
    groups = set(rows.groups)
    images = {record.id for record in rows.records}
    if len(groups) == len(images):
        yield (
            "no two images share a group, so images of one game or video may be in different "
            "splits; group them by a metadata key with --group-by"
        )

    key = metadata_key(group_by)
    if key is not None:
        num_grouped = 0
        num_single = 0
        for record in rows.records:
            if record.group is not None:
                num_grouped += 1
            elif record.metadata.get(key) is None:
                num_single += 1
        if num_grouped:
            yield f"{num_grouped} row(s) have a group key, so {group_by} was ignored for them"
        if num_single:
            yield f"{num_single} row(s) have neither a group nor {group_by}: each is its own group"

    num_shared = sum(group in groups for group in test_groups)
    if num_shared:
        yield (
            f"{num_shared} row(s) of the existing test split share a group or an image "
            "with other splits"
        )
    if rows.fixed["train"]:
        num_rendered = len(rows.fixed["train"])
        yield f"{num_rendered} row(s) under {RENDERED_FOLDER} are rendered and stay in train"


def separate_rendered(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Return the rows of real images and the rows that a top-up rendered."""
    real: list[Record] = []
    rendered: list[Record] = []
    for record in records:
        is_line = record.source != record.id
        if is_line and record.source.startswith(f"{RENDERED_FOLDER}/"):
            rendered.append(record)
        else:
            real.append(record)
    return real, rendered
