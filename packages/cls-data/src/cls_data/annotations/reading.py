"""Reads `ROOT/{train,valid,test}/**/*.jsonl`: a row an image, checked, with its file and line kept."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from cls_data.annotations.image_paths import ImagePathError, forget_folders, is_utf8, locate
from cls_data.annotations.jsonl import LONGEST_LINE, read_lines
from cls_data.annotations.quarantine import Quarantine
from cls_data.errors import DataError

_LONGEST_REASON = 500

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

_EXAMPLE = 'A row looks like {"image": "relative/path.jpg", "suffix": "23"}'
_ADVICE = (
    f"{_EXAMPLE}; correct the rows named, or let `cls-data check ROOT --quarantine FILE` write a list that leaves "
    "them out."
)

# Control characters: a label's trailing NUL is lost in arrays of text, and a line break in every table.
Label = Annotated[
    str, Field(validation_alias=AliasChoices("suffix", "label"), pattern=r"^[^\x00-\x1f\x7f]*$")
]


_KEY = re.compile(rb'"\s*:')
"""What follows each key, and may stand in text: where there are no more of them than keys, no key is repeated."""


class _Row(BaseModel):
    """Schema of one line. `label` is another name for `suffix`; `prefix` is accepted and ignored."""

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
        id: path of the image relative to the data root, with forward slashes.
        path: absolute path of the image.
        label: class name.
        group: what must not be torn apart by a split (a game, a video), if stated.
        metadata: whatever the row carries besides.
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
    """A row that is no record.

    Attributes:
        source: `file:line` of the row.
        kind: `schema` for a row of another shape; `image_file` for one whose image is missing or out of bounds.
        reason: what was given, and what was expected.
    """

    source: str
    kind: Literal["schema", "image_file"]
    reason: str


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of one split, good and bad, in the order of files (sorted) and lines."""

    records: list[Record]
    bad: list[BadRow]


def read_split(
    root: str | os.PathLike[str],
    split: Split,
    *,
    annotations: str = "",
    quarantine: Quarantine | None = None,
) -> list[Record]:
    """Read every row of one split; an absent split folder gives an empty list.

    Raises:
        DataError: as `scan_split`; or rows are malformed, or name an image that is missing or lies outside the root.
            All such rows are named, not only the first.
    """
    rows = scan_split(root, split, annotations=annotations, quarantine=quarantine)
    if rows.bad:
        findings = [f"{bad.source}: {bad.reason}" for bad in rows.bad]
        where = Path(root) / annotations / split
        raise DataError.from_findings(
            f"{len(findings)} bad row(s) under {where}", findings, _ADVICE
        )
    return rows.records


def scan_split(
    root: str | os.PathLike[str],
    split: Split,
    *,
    annotations: str = "",
    quarantine: Quarantine | None = None,
) -> Rows:
    """Read every row of one split, without refusing the bad ones; an absent split folder gives no rows.

    Args:
        root: the data root, which no image may leave.
        split: name of the folder below `annotations`.
        annotations: subfolder of the root that holds the split folders, such as `folds/0`; the root itself if empty.
        quarantine: rows to leave out.

    Raises:
        DataError: the root is missing, the split folder holds no row, or the quarantine was made for other rows.
    """
    base = Path(root).resolve()
    if not base.is_dir():
        raise DataError(
            f"{root}: no such folder; expected a data root that holds train/ and valid/ with *.jsonl files"
        )
    above = base / annotations
    if not above.resolve().is_relative_to(base) or not above.is_dir():
        raise DataError(f"annotations {annotations!r}: no such folder inside the data root {root}")
    folder = above / split
    left_out = (
        Quarantine({})
        if quarantine is None
        else quarantine.below(folder.relative_to(base).as_posix())
    )
    if not folder.is_dir():
        left_out.refuse_unseen(set())
        return Rows([], [])
    forget_folders()
    files = sorted(file for file in folder.rglob("*.jsonl") if file.is_file())
    rows = Rows([], [])
    seen = set()
    for source, text, folder_of_file in _sourced_lines(files, base):
        if left_out.names(source, text):
            seen.add(source)
            continue
        parsed = (
            _too_long(source) if text is None else _parse(text, str(base), folder_of_file, source)
        )
        if isinstance(parsed, Record):
            rows.records.append(parsed)
        else:
            rows.bad.append(parsed)
    left_out.refuse_unseen(seen)
    if not rows.records and not rows.bad and not seen:
        found = f"{len(files)} *.jsonl file(s), all empty" if files else "no *.jsonl file"
        raise DataError(f"{folder}: the split is empty ({found}). {_EXAMPLE}; or remove the folder")
    return rows


def _sourced_lines(files: list[Path], base: Path) -> Iterator[tuple[str, bytes | None, str]]:
    for file in files:
        if not is_utf8(file):
            raise DataError(f"{str(file)!a}: the name is not UTF-8; rename the file or its folder")
        name = file.relative_to(base).as_posix()
        try:
            for number, text in read_lines(file):
                yield f"{name}:{number}", text, str(file.parent)
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def _bad(source: str, kind: Literal["schema", "image_file"], reason: str) -> BadRow:
    # A row may be a megabyte of nonsense.
    return BadRow(
        source, kind, reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"
    )


def _too_long(source: str) -> BadRow:
    return _bad(
        source,
        "schema",
        f"the line is over {LONGEST_LINE:,} bytes long; a row is one line, and short",
    )


def _parse(text: bytes, root: str, folder: str, source: str) -> Record | BadRow:
    try:
        row = _Row.model_validate_json(text)
        if len(_KEY.findall(text)) > len(row.model_fields_set) + len(row.metadata or ()):
            json.loads(text, object_pairs_hook=_refuse_repeated)
    except ValidationError as error:
        return _bad(source, "schema", "; ".join(_explain(item, text) for item in error.errors()))
    except _RepeatedKeyError as error:
        return _bad(source, "schema", f"key {error.args[0]!r} is given more than once")
    try:
        path = locate(root, folder, row.image)
    except ImagePathError as error:
        return _bad(source, "image_file", str(error))
    name = path[len(root) :].replace(os.sep, "/").lstrip("/")
    return Record(name, Path(path), row.suffix, row.group, row.metadata or {}, source)


class _RepeatedKeyError(Exception):
    """A key that an object has twice: of two labels, a parser of JSON takes the last without a word."""


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) < len(pairs):
        raise _RepeatedKeyError(
            next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        )


def _explain(item: Any, text: bytes) -> str:
    key = ".".join(map(str, item["loc"]))
    if item["type"] == "json_invalid":
        return (
            f"not valid JSON ({item['ctx']['error']}): {text[:60].decode(errors='replace').strip()}"
        )
    if item["type"] == "extra_forbidden" and key == "label":
        return (
            "unknown key 'label' beside 'suffix': they are two names of one thing; give one of them"
        )
    if item["type"] == "extra_forbidden":
        return f"unknown key {key!r}; known are image, suffix (or label), prefix, group, metadata"
    if item["type"] == "missing":
        return f"key {key!r} is missing"
    if item["type"] == "string_type" and isinstance(item["input"], int | float):
        return f"{key} is the number {item['input']}; a class name is a string: {json.dumps(str(item['input']))}"
    if item["type"] == "string_pattern_mismatch":
        return f"{key} holds a control character: {item['input']!r:.60}"
    return f"{key or 'the row'}: {item['msg']}, got {item['input']!r:.60}"
