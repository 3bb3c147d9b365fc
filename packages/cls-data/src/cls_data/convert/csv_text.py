"""Text of CSV files: their encoding and their delimiter."""

import codecs
import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cls_data.errors import DataError
from cls_export.contract.files import read_bytes

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}

_MAX_BYTES = 500_000_000

_BYTE_ORDER_MARKS = {  # UTF-32 before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ZIP = b"PK\x03\x04"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n')
"""First line of a file that names its delimiter, as Excel understands it."""

_SURROGATE = re.compile("[\ud800-\udfff]")
"""UTF-7 and `unicode_escape` decode to halves of characters, which no file can hold."""

_SAMPLE_CHARACTERS = 200_000
_SAMPLE_ROWS = 200
_IGNORED = re.compile(r"[\s_.-]+")


class CsvSyntaxError(ValueError):
    """A row is not CSV; `line` is the line on which it starts."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def read_text(file: Path, source: str, encoding: str | None = None) -> str:
    """Read a text file in the given encoding; if None, in UTF-8 or as its byte-order mark says.

    Raises:
        DataError: The file cannot be read, is too large, or has another encoding.
    """
    content = read_bytes(file, error=DataError, max_bytes=_MAX_BYTES)
    if encoding is None:
        encoding = _detect_encoding(content)
    try:
        text = content.decode(encoding)
    except LookupError:
        raise DataError(
            f"encoding {encoding!r} is unknown; expected a name such as cp1252 or utf-16"
        ) from None
    except UnicodeError as error:
        raise DataError(_describe_encoding_error(content, source, encoding, error)) from None
    surrogate = _SURROGATE.search(text)
    if surrogate is not None:
        line = text.count("\n", 0, surrogate.start()) + 1
        raise DataError(
            f"{source}:{line}: in the encoding {encoding}, the text has half of a character "
            f"({surrogate[0]!a}); give another --encoding"
        )
    return text


def split_separator_line(text: str) -> tuple[str | None, str]:
    """Return the delimiter that the first line names, and the text below; None if it does not."""
    match = _SEPARATOR_LINE.match(text)
    if match is None:
        return None, text
    return match[1], text[match.end() :]


def detect_delimiter(text: str, expected: Sequence[Iterable[str]]) -> str:
    """Return the delimiter that splits the text best.

    That is the one whose header has the most expected columns, then one with several columns, then
    the one whose rows have as many cells as the header, then the one with the most columns.
    (`csv.Sniffer` compares the frequency of characters, and so takes a letter or a decimal comma
    for a delimiter.)

    Args:
        text: The table, with a header.
        expected: Possible names of each expected column.
    """
    sample = text[:_SAMPLE_CHARACTERS]
    names = [{column_key(name) for name in group} for group in expected]

    best = ","
    best_score = (-1, False, False, 0)
    for delimiter in DELIMITERS.values():
        score = _score_delimiter(sample, delimiter, names)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def column_key(name: str) -> str:
    """Return what spellings of a column name have in common: `File_Name` equals `filename`."""
    return _IGNORED.sub("", name.casefold())


def read_rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each row starts, and its cells; a quoted cell may span lines.

    Blank lines are skipped, and lines of empty cells, as spreadsheets leave them.

    Raises:
        CsvSyntaxError: The text is not CSV.
    """
    stream = io.StringIO(text, newline="")
    reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=delimiter != " ", strict=True)
    line = 1
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise CsvSyntaxError(line, str(error)) from error
        cells = [_strip(value) for value in values]
        if any(cells):
            yield line, cells
        line = reader.line_num + 1


def parse_delimiter(text: str) -> str:
    """Return the delimiter that a name, such as "tab", or a character stands for.

    Raises:
        DataError: It is neither.
    """
    delimiter = DELIMITERS.get(text.lower(), text)
    if delimiter == "\\t":
        delimiter = "\t"
    if len(delimiter) != 1 or delimiter in '"\r\n\0' or delimiter.isalnum():
        names = ", ".join(DELIMITERS)
        raise DataError(f"delimiter {text!r}: expected {names}, or one character")
    return delimiter


def _score_delimiter(
    sample: str, delimiter: str, names: list[set[str]]
) -> tuple[int, bool, bool, int]:
    rows: list[list[str]] = []
    try:
        for _, cells in itertools.islice(read_rows(sample, delimiter), _SAMPLE_ROWS):
            rows.append(cells)
    except CsvSyntaxError:
        pass  # the sample may end in a quoted cell
    if not rows:
        return 0, False, False, 0

    header = {column_key(name) for name in rows[0]}
    num_expected = sum(not header.isdisjoint(group) for group in names)
    is_even = all(len(row) == len(rows[0]) for row in rows[:-1])
    return num_expected, len(rows[0]) > 1, is_even, len(rows[0])


def _strip(cell: str) -> str:
    """Remove blanks and invisible characters at both ends."""
    return cell.strip().strip("\ufeff\u200b").strip()


def _detect_encoding(content: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return encoding
    start = content[:1000]
    if b"\0" in start:  # ASCII in UTF-16 without a mark
        zeros = start[1::2].count(0), start[0::2].count(0)
        if max(zeros) > len(start) // 4 and min(zeros) == 0:
            return "utf-16-le" if zeros[0] else "utf-16-be"
    return "utf-8-sig"


def _describe_encoding_error(
    content: bytes, source: str, encoding: str, error: UnicodeError
) -> str:
    if content.startswith(_ZIP):
        return f"{source}: a workbook or an archive, not CSV; export the table as CSV"
    if encoding.startswith("utf-8") and b"\0" in content[:1000]:
        return f"{source}: not a text file; expected a CSV file"
    if not isinstance(error, UnicodeDecodeError):
        return f"{source}: not {encoding} ({error})"
    line = content.count(b"\n", 0, error.start) + 1
    reason = f"{source}:{line}: not {encoding.removesuffix('-sig').upper()} ({error.reason})"
    if not encoding.startswith("utf-8"):
        return f"{reason}; give the encoding of the file with --encoding"

    start = content.rfind(b"\n", 0, error.start) + 1
    end = content.find(b"\n", error.start)
    text = content[start : end if end >= 0 else None][:200].decode("cp1252", errors="replace")
    return (
        f"{reason}; save the file as UTF-8, or give its encoding: with --encoding cp1252 "
        f"(Western European) the line reads {text.strip()!r}"
    )
