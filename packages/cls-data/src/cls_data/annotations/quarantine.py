"""Quarantine files: lists of annotation rows, or of images in class folders, to leave out.

The data gate writes them and every reader accepts them. The annotations are never edited.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cls_data.annotations.lines import read_lines
from cls_data.errors import DataError
from cls_export.contract.errors import format_validation_error
from cls_export.contract.files import read_bytes, write_atomically
from cls_export.contract.image_formats import IMAGE_SUFFIXES

_MAX_BYTES = 200_000_000
"""About a million rows."""

_SPLITS = ("train", "valid", "test")
_IMAGE_SUFFIX = "|".join(map(re.escape, sorted(IMAGE_SUFFIXES)))
_ROW = rf"(?i).(:[0-9]+|{_IMAGE_SUFFIX})$"
_LINE = re.compile(r"\.jsonl:[0-9]+$", re.IGNORECASE)
_REWRITE_ADVICE = (
    "The data were edited after the quarantine was written. "
    "Run `cls-data check ROOT --quarantine FILE` again."
)


class _Entry(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    row: str = Field(pattern=_ROW)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    because: tuple[str, ...] = Field(strict=False)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Rows to leave out: `file:line` (relative to the data root) to the SHA-256 of the line.

    An image in a class folder has no line: its path and the SHA-256 of the file stand for the row.
    The hash keeps an entry from removing a different row after an edit.
    """

    rows: Mapping[str, str]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file written by `write_quarantine`; raise a `DataError` if that fails."""
        lines = read_bytes(path, error=DataError, max_bytes=_MAX_BYTES).splitlines()
        rows: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            try:
                entry = _Entry.model_validate_json(line)
            except ValidationError as error:
                raise DataError(
                    f"{path}:{number}: not a quarantine entry ({format_validation_error(error)}); "
                    "expected a file written by `cls-data check ROOT --quarantine FILE`"
                ) from error
            if rows.get(entry.row, entry.sha256) != entry.sha256:
                raise DataError(
                    f"{path}:{number}: row {entry.row!r} is listed twice, with different SHA-256; "
                    "do not merge quarantine files, write a new one with `cls-data check`"
                )
            rows[entry.row] = entry.sha256
        return cls(rows)

    def for_folder(self, folder: str) -> "Quarantine":
        """Return the entries of one folder, which is given relative to the data root."""
        prefix = f"{folder}/"
        rows = {}
        for row, digest in self.rows.items():
            if row.startswith(prefix):
                rows[row] = digest
        return Quarantine(rows)

    def check_annotations(self, annotations: str) -> None:
        """Raise a `DataError` if an entry does not belong to the annotations in use."""
        folder = PurePosixPath(annotations).as_posix().removeprefix(".")
        start = f"{folder}/" if folder else ""
        prefixes = tuple(f"{start}{split}/" for split in _SPLITS)
        foreign_rows = [row for row in self.rows if not row.startswith(prefixes)]
        if foreign_rows:
            raise DataError.from_findings(
                f"{len(foreign_rows)} quarantine row(s) are not in the annotations in use "
                f"({start or 'the data root'})",
                foreign_rows,
                "Write a quarantine for these annotations: "
                "`cls-data check ROOT --annotations FOLDER --quarantine FILE`.",
            )

    def excludes(self, source: str, line: bytes | None) -> bool:
        """Return whether a row is left out; `line` is None if it was too long to read.

        Raises:
            DataError: The line has changed since the quarantine was written.
        """
        if source not in self.rows:
            return False
        if self.rows[source] != hash_line(line):
            raise DataError(
                f"{source}: the text of this quarantined row changed. {_REWRITE_ADVICE}"
            )
        return True

    def excludes_file(self, source: str, path: Path) -> bool:
        """Return whether an image in a class folder is left out.

        Raises:
            DataError: The file has changed since the quarantine was written.
        """
        if source not in self.rows:
            return False
        if self.rows[source] != _hash_file(path):
            raise DataError(f"{source}: this quarantined image changed. {_REWRITE_ADVICE}")
        return True

    def check_all_rows_exist(self, seen: set[str]) -> None:
        """Raise a `DataError` if an entry was not seen in the annotations."""
        missing = sorted(set(self.rows) - seen)
        if missing:
            raise DataError.from_findings(
                f"{len(missing)} quarantined row(s) do not exist", missing, _REWRITE_ADVICE
            )


def write_quarantine(
    path: str | os.PathLike[str], root: str | os.PathLike[str], reasons: Mapping[str, Sequence[str]]
) -> None:
    """Write a quarantine file of `file:line` rows or images, each with the rules that it breaks."""
    digests = _hash_rows(Path(root), reasons)
    lines = []
    for row, rules in reasons.items():
        entry = {
            "row": row,
            "sha256": digests[row],
            "because": list(rules),
        }
        lines.append(json.dumps(entry) + "\n")
    content = "".join(lines)
    write_atomically(path, content.encode())


def hash_line(line: bytes | None) -> str:
    """Return the hexadecimal SHA-256 of a stripped line; all lines too long to read share one."""
    content = b"" if line is None else line
    return hashlib.sha256(content).hexdigest()


def is_line(row: str) -> bool:
    """Return whether a row is `file:line`; otherwise it is the path of an image."""
    return _LINE.search(row) is not None


def _hash_rows(root: Path, rows: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the line or image of each row; lines of other rows may be included."""
    digests = {}
    files = set()
    for row in rows:
        if is_line(row):
            file, _, _ = row.rpartition(":")
            files.add(file)
        else:
            digests[row] = _hash_file(root / row)
    for file in sorted(files):
        for number, text in read_lines(root / file):
            digests[f"{file}:{number}"] = hash_line(text)
    return digests


def _hash_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file; of no bytes if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return hash_line(None)
