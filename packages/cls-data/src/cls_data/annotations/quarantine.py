"""Rows to leave out, as a file that the gate writes and every reader accepts; the data itself is never edited."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cls_data.annotations.jsonl import read_lines
from cls_data.errors import DataError
from cls_export.contract.files import write_atomically

_SPLITS = ("train", "valid", "test")
_AGAIN = "Run `cls-data check ROOT --quarantine FILE` again: the annotations were edited since it was written."


class _Entry(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    row: str = Field(pattern=r".:[0-9]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    because: tuple[str, ...] = Field(strict=False)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Rows by `file:line`, each with the SHA-256 of the line's bytes, so that it can never leave out another row.

    Attributes:
        rows: `file:line` (file relative to the data root) to the hexadecimal hash of the line.
    """

    rows: Mapping[str, str]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `write_quarantine` wrote.

        Raises:
            DataError: the file cannot be read, or holds something else.
        """
        rows = {}
        try:
            lines = Path(path).read_bytes().splitlines()
        except OSError as error:
            raise DataError(f"{path}: the quarantine cannot be read ({error.strerror})") from error
        for number, line in enumerate(lines, start=1):
            try:
                entry = _Entry.model_validate_json(line)
            except ValidationError as error:
                raise DataError(
                    f"{path}:{number}: not a line of a quarantine ({error.errors()[0]['msg']}); expected a file that "
                    "`cls-data check ROOT --quarantine FILE` wrote"
                ) from error
            rows[entry.row] = entry.sha256
        return cls(rows)

    def below(self, folder: str) -> "Quarantine":
        """Return the entries of one folder's files; the folder is relative to the data root."""
        return Quarantine(
            {row: digest for row, digest in self.rows.items() if row.startswith(f"{folder}/")}
        )

    def refuse_others(self, annotations: str) -> None:
        """Refuse entries of other annotation sets than the one that is read.

        Raises:
            DataError: the quarantine was made for another set.
        """
        start = PurePosixPath(annotations).as_posix().removeprefix(".")
        start = f"{start}/" if start else ""
        others = [
            row
            for row in self.rows
            if not row.startswith(tuple(f"{start}{split}/" for split in _SPLITS))
        ]
        if others:
            raise DataError.from_findings(
                f"{len(others)} row(s) of the quarantine belong to other annotations than {start or 'the root'}",
                others,
                "Write the list with `cls-data check ROOT --annotations FOLDER --quarantine FILE` for those.",
            )

    def names(self, source: str, text: bytes | None) -> bool:
        """Whether a row is to be left out; its text is None where the line was too long to be read.

        Raises:
            DataError: another text stood on that line when the quarantine was written.
        """
        if source not in self.rows:
            return False
        if self.rows[source] != line_digest(text):
            raise DataError(
                f"{source}: the quarantine names this row, but with another text. {_AGAIN}"
            )
        return True

    def refuse_unseen(self, seen: set[str]) -> None:
        """Refuse entries that no line was found for.

        Raises:
            DataError: names them.
        """
        if unseen := sorted(set(self.rows) - seen):
            raise DataError.from_findings(
                f"{len(unseen)} row(s) of the quarantine are not there", unseen, _AGAIN
            )


def write_quarantine(
    path: str | os.PathLike[str], root: str | os.PathLike[str], reasons: Mapping[str, Sequence[str]]
) -> None:
    """Write the rows to leave out: `file:line` to the names of the rules that each breaks."""
    texts = _texts(Path(root), reasons)
    lines = [
        json.dumps({"row": row, "sha256": line_digest(texts[row]), "because": list(because)}) + "\n"
        for row, because in reasons.items()
    ]
    write_atomically(path, "".join(lines).encode())


def line_digest(text: bytes | None) -> str:
    """Return the hexadecimal SHA-256 of a stripped line; lines that are too long to be read share one."""
    return hashlib.sha256(text or b"").hexdigest()


def _texts(root: Path, rows: Mapping[str, object]) -> dict[str, bytes | None]:
    texts: dict[str, bytes | None] = {}
    for file in sorted({row.rpartition(":")[0] for row in rows}):
        texts.update({f"{file}:{number}": text for number, text in read_lines(root / file)})
    return texts
