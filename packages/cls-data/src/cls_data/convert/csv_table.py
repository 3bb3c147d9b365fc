"""CSV files, read with errors that name the file and line."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cls_data.convert.csv_text import (
    DELIMITERS,
    CsvSyntaxError,
    column_key,
    detect_delimiter,
    read_rows,
    read_text,
    split_separator_line,
)
from cls_data.errors import DataError
from cls_export.contract.suggestions import did_you_mean

_MAX_ROWS = 5_000_000
_MAX_SHOWN = 60
"""Characters of a column's name that a message shows."""


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A CSV file with the line number and the stripped cells of each row.

    Every row has as many cells as the header. `source` is the name of the file in messages.
    """

    source: str
    header: list[str]
    rows: list[tuple[int, list[str]]]

    @classmethod
    def read(
        cls,
        file: Path,
        source: str,
        expected: Sequence[Iterable[str]] = (),
        *,
        delimiter: str | None = None,
        encoding: str | None = None,
    ) -> Self:
        """Read a file with a header.

        Args:
            file: The file.
            source: Its name in messages.
            expected: Possible names of each column that the file should have, to detect the
                delimiter.
            delimiter: One character; None to detect a comma, semicolon, tab, or pipe.
            encoding: Encoding of the text; None for UTF-8, or UTF-16 or UTF-32 if detected.

        Raises:
            DataError: The file cannot be read, is empty, has another encoding, or is not CSV; a
                column name is repeated; or a row has another number of cells than the header.
        """
        text = read_text(file, source, encoding)
        named, text = split_separator_line(text)
        skipped_lines = 0 if named is None else 1
        delimiter = delimiter or named or detect_delimiter(text, expected)

        rows = _parse(text, delimiter, source, skipped_lines)
        if not rows:
            raise DataError(f"{source}: empty file; expected a header and one row per image")
        header_line, header = rows[0]
        for name, count in Counter(header).items():
            if name and count > 1:
                raise DataError(
                    f"{source}:{header_line}: column {name!r} occurs twice; rename one of them"
                )
        rows = _trim(rows[1:], len(header))
        _check_lengths(rows, len(header), delimiter, source)
        return cls(source, header, rows)

    def find_column(self, name: str, role: str) -> int:
        """Return the index of a column, ignoring letter case, blanks, and `_`, `-`, and `.`.

        Raises:
            DataError: There is no such column, or several are spelled like it.
        """
        index = self._find(name)
        if index is not None:
            return index
        hint = did_you_mean(name, self._names())
        raise DataError(f"{self.source}:1: no column {name!r} for the {role}; {hint}")

    def find_usual_column(self, names: Sequence[str], role: str) -> int:
        """Return the index of the first name, else of the only other name that is a column.

        Raises:
            DataError: There is no such column, or several.
        """
        index = self._find(names[0])
        if index is not None:
            return index
        found = {index for index in map(self._find, names) if index is not None}
        if len(found) == 1:
            return found.pop()
        option = f"--{role}-column"
        if found:
            columns = " or ".join(repr(self.header[index]) for index in sorted(found))
            raise DataError(
                f"{self.source}:1: the {role} may be in column {columns}; choose one with {option}"
            )
        hint = did_you_mean(names[0], self._names())
        raise DataError(
            f"{self.source}:1: no column {names[0]!r} for the {role}; name it with {option} "
            f"(the first line of the file must name the columns); {hint}"
        )

    def has_column(self, name: str) -> bool:
        """Return whether there is a column of this name, as `find_column` compares names."""
        return self._find(name) is not None

    def _names(self) -> list[str]:
        """Return the names of columns, shortened for a message."""
        return [name[:_MAX_SHOWN] for name in self.header if name]

    def _find(self, name: str) -> int | None:
        if name in self.header:
            return self.header.index(name)
        key = column_key(name)
        matches = [index for index, column in enumerate(self.header) if column_key(column) == key]
        if not key or not matches:
            return None
        if len(matches) > 1:
            names = " and ".join(repr(self.header[index]) for index in matches)
            raise DataError(f"{self.source}:1: {names} are spelled like {name!r}; rename one")
        return matches[0]


def _parse(
    text: str, delimiter: str, source: str, skipped_lines: int
) -> list[tuple[int, list[str]]]:
    rows: list[tuple[int, list[str]]] = []
    try:
        for line, cells in read_rows(text, delimiter):
            rows.append((line + skipped_lines, cells))
            if len(rows) > _MAX_ROWS:
                raise DataError(f"{source}: more than {_MAX_ROWS:,} rows; split the file")
    except CsvSyntaxError as error:
        line = error.line + skipped_lines
        raise DataError(f"{source}:{line}: not valid CSV ({error})") from None
    return rows


def _trim(rows: list[tuple[int, list[str]]], length: int) -> list[tuple[int, list[str]]]:
    """Remove empty cells beyond the header, as spreadsheets write them."""
    trimmed = []
    for line, cells in rows:
        is_padded = len(cells) > length and not any(cells[length:])
        trimmed.append((line, cells[:length] if is_padded else cells))
    return trimmed


def _check_lengths(
    rows: list[tuple[int, list[str]]], length: int, delimiter: str, source: str
) -> None:
    uneven = []
    for line, cells in rows:
        if len(cells) != length:
            uneven.append(f"{source}:{line}: {len(cells)} value(s)")
    if not uneven:
        return
    names = {character: name for name, character in DELIMITERS.items()}
    name = names.get(delimiter, repr(delimiter))
    raise DataError.from_findings(
        f"{len(uneven)} row(s) do not have {length} values, as the header has",
        uneven,
        f"Correct these rows; quote values that contain a {name}, which separates the values "
        "(--delimiter).",
    )
