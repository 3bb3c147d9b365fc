"""CSV files, read with errors that name the file and line."""

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cls_data.errors import DataError
from cls_export.contract.suggestions import did_you_mean


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A CSV file with stripped column names, and the line number and cells of each row.

    Every row has as many cells as the header. `source` is the name of the file in messages.
    """

    source: str
    header: list[str]
    rows: list[tuple[int, list[str]]]

    @classmethod
    def read(cls, file: Path, source: str) -> Self:
        """Read a UTF-8 file, with or without a byte-order mark; empty lines are skipped.

        Raises:
            DataError: The file is empty, not UTF-8, or not CSV, a column name is repeated, or a
                row has another number of cells than the header.
        """
        rows = _parse(_read_text(file, source), source)
        if not rows:
            raise DataError(f"{source}: empty file; expected a header and one row per image")

        header_line, names = rows[0]
        header = [name.strip() for name in names]
        for name, count in Counter(header).items():
            if name and count > 1:
                raise DataError(
                    f"{source}:{header_line}: column {name!r} occurs twice; rename one of them"
                )

        uneven = []
        for line, values in rows:
            if len(values) != len(header):
                uneven.append(f"{source}:{line}: {len(values)} value(s)")

        if uneven:
            raise DataError.from_findings(
                f"{len(uneven)} row(s) do not have {len(header)} values, as the header has",
                uneven,
                "Correct these rows; quote values that contain a comma.",
            )
        return cls(source, header, rows[1:])

    def find_column(self, name: str, role: str) -> int:
        """Return the index of a column; raise a `DataError` with similar names if there is none."""
        if name in self.header:
            return self.header.index(name)
        names = filter(None, self.header)
        hint = did_you_mean(name, names)
        raise DataError(f"{self.source}:1: no column {name!r} for the {role}; {hint}")


def _read_text(file: Path, source: str) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{source}:{line}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from None


def _parse(text: str, source: str) -> list[tuple[int, list[str]]]:
    """Return the rows with the lines on which they start; a quoted value may span lines."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    line = 1
    try:
        for values in reader:
            if values:
                rows.append((line, values))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{source}:{line}: not valid CSV ({error})") from None
    return rows
