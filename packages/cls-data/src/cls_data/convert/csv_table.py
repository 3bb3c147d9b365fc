"""CSV files, with errors by file and line."""

import csv
import difflib
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cls_data.errors import DataError


def read_table(
    file: Path, source: str, delimiter: str = ","
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of the columns, stripped, and the rows with the lines on which they start."""
    content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{source}:{line}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    start = 1
    try:
        for values in reader:
            rows += [(start, values)] if values else []
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{source}:{start}: not valid CSV ({error})") from None
    if not rows:
        raise DataError(f"{source}: the file is empty; expected a header and a row an image")
    header = [name.strip() for name in rows[0][1]]
    if twice := [name for name, count in Counter(header).items() if name and count > 1]:
        raise DataError(
            f"{source}:{rows[0][0]}: the header names {twice[0]!r} twice; rename one of the columns"
        )
    uneven = [
        f"{source}:{line}: {len(values)} value(s)"
        for line, values in rows
        if len(values) != len(header)
    ]
    if uneven:
        summary = f"{len(uneven)} row(s) do not have the header's {len(header)} columns"
        raise DataError.from_findings(
            summary, uneven, "Quote values that contain the separator; correct the rows."
        )
    return header, rows[1:]


def column(header: Sequence[str], name: str, role: str, source: str) -> int:
    """Return the place of a column; the error for one that is missing names the nearest."""
    if name in header:
        return header.index(name)
    near = difflib.get_close_matches(name, header, n=1)
    hint = (
        f"did you mean {near[0]!r}?" if near else f"the header has {', '.join(map(repr, header))}"
    )
    raise DataError(f"{source}:1: no column {name!r} for the {role}; {hint}")
