"""Read and validate `ROOT/{train,valid,test}/**/*.jsonl`, one row per image."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from cls_data.annotations.image_paths import (
    ImagePathError,
    clear_folder_cache,
    is_utf8,
    resolve_image_path,
)
from cls_data.annotations.lines import MAX_LINE_BYTES, read_lines
from cls_data.annotations.quarantine import Quarantine
from cls_data.errors import DataError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

_MAX_REASON_LENGTH = 500
"""A row can be a megabyte of garbage; longer reasons are cut."""

_EXAMPLE = 'Example of a row: {"image": "relative/path.jpg", "suffix": "23"}'
_FIX_ADVICE = (
    f"{_EXAMPLE}. Fix these rows, or run `cls-data check ROOT --quarantine FILE` to list the rows "
    "to leave out."
)

# No control characters: numpy string arrays drop a trailing NUL, and a line break splits a table.
Label = Annotated[
    str, Field(validation_alias=AliasChoices("suffix", "label"), pattern=r"^[^\x00-\x1f\x7f]*$")
]

_KEY = re.compile(rb'"\s*:')
"""Matches the end of every JSON key, and sometimes text in a string.

If there are no more matches than parsed keys, no key is repeated, and the slower exact check is
skipped.
"""


class _Row(BaseModel):
    """Schema of one line. `label` is another name for `suffix`; `prefix` is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    image: str = Field(min_length=1)
    suffix: Label
    prefix: str | None = None
    group: str | None = None
    metadata: dict[str, JsonValue] | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One annotated image.

    Attributes:
        id: Path of the image relative to the data root, with forward slashes.
        path: Absolute path of the image.
        label: Class name.
        group: Rows of one group (a game, a video) stay in one split; None for no group.
        metadata: Any JSON object.
        source: `file:line` of the row.
    """

    id: str
    path: Path
    label: str
    group: str | None
    metadata: Mapping[str, JsonValue]
    source: str


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is not a valid record.

    It is malformed (`schema`), or its image is missing or outside the root (`image_file`).
    """

    source: str
    kind: Literal["schema", "image_file"]
    reason: str


@dataclass(frozen=True, slots=True)
class SplitRows:
    """All rows of one split, ordered by file name and line."""

    records: list[Record]
    bad_rows: list[BadRow]


def read_split(
    root: str | os.PathLike[str],
    split: Split,
    *,
    annotations: str = "",
    quarantine: Quarantine | None = None,
) -> list[Record]:
    """Read every row of one split; a missing split folder gives an empty list.

    Raises:
        DataError: As `scan_split`; or rows are malformed, or name an image that is missing or
            outside the root. The message lists all such rows.
    """
    rows = scan_split(root, split, annotations=annotations, quarantine=quarantine)
    if rows.bad_rows:
        findings = []
        for bad_row in rows.bad_rows:
            findings.append(f"{bad_row.source}: {bad_row.reason}")
        folder = Path(root) / annotations / split
        raise DataError.from_findings(
            f"{len(findings)} bad row(s) under {folder}",
            findings,
            _FIX_ADVICE,
        )
    return rows.records


def scan_split(
    root: str | os.PathLike[str],
    split: Split,
    *,
    annotations: str = "",
    quarantine: Quarantine | None = None,
) -> SplitRows:
    """Read every row of one split, and collect bad rows instead of raising.

    Args:
        root: The data root, which no image may leave.
        split: Name of the folder under `annotations`. A missing folder gives no rows.
        annotations: Subfolder of the root with the split folders, such as `folds/0`; empty for
            the root itself.
        quarantine: Rows to leave out.

    Raises:
        DataError: The root is missing, the split folder has no rows, or the quarantine does not
            match the annotations.
    """
    base = Path(root).resolve()
    if not base.is_dir():
        raise DataError(
            f"{root}: no such folder; expected a data root with train/ and valid/ folders that "
            "contain *.jsonl files"
        )
    annotations_folder = base / annotations
    if not annotations_folder.resolve().is_relative_to(base) or not annotations_folder.is_dir():
        raise DataError(f"annotations {annotations!r}: no such folder inside the data root {root}")

    folder = annotations_folder / split
    if quarantine is None:
        quarantine = Quarantine({})
    quarantine = quarantine.for_folder(folder.relative_to(base).as_posix())

    rows = SplitRows([], [])
    if not folder.is_dir():
        quarantine.check_all_rows_exist(set())
        return rows

    clear_folder_cache()
    files = sorted(file for file in folder.rglob("*.jsonl") if file.is_file())
    quarantined = set()
    for source, text, file_folder in _read_sourced_lines(files, base):
        if quarantine.excludes(source, text):
            quarantined.add(source)
            continue
        row = _parse_row(text, str(base), file_folder, source)
        if isinstance(row, Record):
            rows.records.append(row)
        else:
            rows.bad_rows.append(row)
    quarantine.check_all_rows_exist(quarantined)
    if not rows.records and not rows.bad_rows and not quarantined:
        problem = f"{len(files)} *.jsonl file(s), all empty" if files else "no *.jsonl file"
        raise DataError(
            f"{folder}: the split is empty ({problem}). Add rows or remove the folder. {_EXAMPLE}"
        )
    return rows


def _read_sourced_lines(files: list[Path], base: Path) -> Iterator[tuple[str, bytes | None, str]]:
    """Yield `file:line`, the line's bytes, and the file's folder for each line of the files."""
    for file in files:
        if not is_utf8(file):
            raise DataError(
                f"{str(file)!a}: the path is not valid UTF-8; rename the file or its folder"
            )

        name = file.relative_to(base).as_posix()
        try:
            for number, text in read_lines(file):
                yield f"{name}:{number}", text, str(file.parent)
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def _parse_row(text: bytes | None, root: str, folder: str, source: str) -> Record | BadRow:
    if text is None:
        reason = (
            f"the line is over {MAX_LINE_BYTES:,} bytes long; expected one JSON object per line"
        )
        return _bad_row(source, "schema", reason)

    try:
        row = _Row.model_validate_json(text)
        num_keys = len(row.model_fields_set) + len(row.metadata or ())
        if len(_KEY.findall(text)) > num_keys:
            json.loads(text, object_pairs_hook=_check_keys_are_unique)
    except ValidationError as error:
        problems = [_describe_problem(problem, text) for problem in error.errors()]
        return _bad_row(source, "schema", "; ".join(problems))
    except _RepeatedKeyError as error:
        return _bad_row(source, "schema", f"key {error.args[0]!r} is given more than once")

    try:
        path = resolve_image_path(root, folder, row.image)
    except ImagePathError as error:
        return _bad_row(source, "image_file", str(error))

    relative_path = path[len(root) :].replace(os.sep, "/")
    return Record(
        id=relative_path.lstrip("/"),
        path=Path(path),
        label=row.suffix,
        group=row.group,
        metadata=row.metadata or {},
        source=source,
    )


def _bad_row(source: str, kind: Literal["schema", "image_file"], reason: str) -> BadRow:
    if len(reason) > _MAX_REASON_LENGTH:
        beginning = reason[:_MAX_REASON_LENGTH]
        reason = f"{beginning}…"
    return BadRow(source, kind, reason)


class _RepeatedKeyError(Exception):
    """A JSON object has a key twice. JSON parsers silently use the last value."""


def _check_keys_are_unique(pairs: list[tuple[str, Any]]) -> None:
    keys = set()
    for key, _ in pairs:
        if key in keys:
            raise _RepeatedKeyError(key)
        keys.add(key)


def _describe_problem(problem: Any, text: bytes) -> str:
    """Describe one pydantic error of a row: what was given, and what was expected."""
    kind = problem["type"]
    given = problem["input"]
    key = ".".join(map(str, problem["loc"]))

    if kind == "json_invalid":
        start = text[:60].decode(errors="replace").strip()
        return f"not valid JSON ({problem['ctx']['error']}): {start}"

    if kind == "extra_forbidden" and key == "label":
        return "keys 'suffix' and 'label' are both given, but mean the same; remove one of them"
    if kind == "extra_forbidden":
        return f"unknown key {key!r}; valid keys: image, suffix (or label), prefix, group, metadata"

    if kind == "missing":
        return f"key {key!r} is missing"
    if kind == "string_type" and isinstance(given, int | float):
        quoted = json.dumps(str(given))
        return f"{key} is the number {given}, but a class name is a string; write {quoted}"

    if kind == "string_pattern_mismatch":
        return f"{key} contains a control character: {given!r:.60}"
    return f"{key or 'the row'}: {problem['msg']}, got {given!r:.60}"
