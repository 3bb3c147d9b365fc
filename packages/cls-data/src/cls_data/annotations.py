"""Reads `ROOT/{train,valid,test}/**/*.jsonl`: a row an image, checked, with its file and line kept."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from cls_data.errors import DataError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

_ADVICE = 'A row looks like {"image": "relative/path.jpg", "suffix": "23"}; correct or remove the rows named.'


class _Row(BaseModel):
    """Schema of one line. `label` is another name for `suffix`; `prefix` is accepted and ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    image: str = Field(min_length=1)
    suffix: str = Field(validation_alias=AliasChoices("suffix", "label"))
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


def read_split(root: str | os.PathLike[str], split: Split) -> list[Record]:
    """Read every row of one split, files in sorted order; an absent split folder gives an empty list.

    Raises:
        DataError: the root is missing, the folder holds no row, or rows are malformed, or name an image that is
            missing or lies outside the root. All such rows are named, not only the first.
    """
    base = Path(root).resolve()
    if not base.is_dir():
        raise DataError(f"{root}: no such folder; expected a data root that holds train/ and valid/ with *.jsonl files")
    folder = base / split
    if not folder.is_dir():
        return []
    files = sorted(file for file in folder.rglob("*.jsonl") if file.is_file())
    records: list[Record] = []
    findings: list[str] = []
    for file in files:
        for line, text in _lines(file):
            source = f"{file.relative_to(base).as_posix()}:{line}"
            parsed = _parse(text, base, file.parent, source)
            if isinstance(parsed, Record):
                records.append(parsed)
            else:
                findings.append(f"{source}: {parsed}")
    if findings:
        raise DataError.from_findings(f"{len(findings)} bad row(s) under {folder}", findings, _ADVICE)
    if not records:
        found = f"{len(files)} *.jsonl file(s), all empty" if files else "no *.jsonl file"
        raise DataError(f"{folder}: the split is empty ({found}). {_ADVICE.split(';')[0]}; or remove the folder")
    return records


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line  # a byte-order mark
            if text.strip():
                yield number, text


def _parse(text: bytes, root: Path, folder: Path, source: str) -> Record | str:
    """Return the row's record, or a sentence on what is wrong with it."""
    try:
        row = _Row.model_validate_json(text)
    except ValidationError as error:
        return "; ".join(_explain(item, text) for item in error.errors())
    if "\0" in row.image or Path(row.image).is_absolute():
        return f"image {row.image!r} must be a path relative to the annotation file's folder"
    path = Path(os.path.realpath(folder / row.image))
    if not path.is_relative_to(root):
        return f"image {row.image!r} leaves the data root {root}"
    try:
        is_file = path.is_file()
    except OSError as error:  # a name longer than the file system allows
        return f"image {row.image[:80]!r} cannot be looked up ({error.strerror})"
    if not is_file:
        return f"image {row.image!r} does not exist (looked for {path})"
    return Record(path.relative_to(root).as_posix(), path, row.suffix, row.group, row.metadata or {}, source)


def _explain(item: Any, text: bytes) -> str:
    key = ".".join(map(str, item["loc"]))
    if item["type"] == "json_invalid":
        return f"not valid JSON ({item['ctx']['error']}): {text[:60].decode(errors='replace').strip()}"
    if item["type"] == "extra_forbidden" and key == "label":
        return "unknown key 'label' beside 'suffix': they are two names of one thing; give one of them"
    if item["type"] == "extra_forbidden":
        return f"unknown key {key!r}; known are image, suffix (or label), prefix, group, metadata"
    if item["type"] == "missing":
        return f"key {key!r} is missing"
    if item["type"] == "string_type" and isinstance(item["input"], int | float):
        return f"{key} is the number {item['input']}; a class name is a string: {json.dumps(str(item['input']))}"
    return f"{key or 'the row'}: {item['msg']}, got {item['input']!r:.60}"
