"""The content of a page: sections of blocks.

Shares are 0 to 1 and are displayed as percentages. Text is plain text; markup in it is escaped.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cls_report.statistics.estimates import Estimate


def _escape_surrogates(value: object) -> object:
    """Escape what UTF-8 cannot represent, such as the bytes of a file name that is not UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    return value


Name = Annotated[str, BeforeValidator(_escape_surrogates)]
"""Any text, such as the name of a class or file."""


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Text(_Content):
    """A paragraph."""

    block: Literal["text"] = "text"
    text: Name
    tone: Literal["plain", "verdict", "warning", "muted"] = "plain"


class Facts(_Content):
    """Names and values, such as model, commit, and duration."""

    block: Literal["facts"] = "facts"
    facts: dict[Name, Name]


class Code(_Content):
    """Text to copy, such as a command. A folded block opens on a click."""

    block: Literal["code"] = "code"
    title: Name
    text: Name
    folded: bool = False


class Score(_Content):
    """One metric, such as `top-1`, 0.89 (0.85-0.92), and the note `324 of 364`."""

    title: Name
    estimate: Estimate
    unit: Literal["share", "number"] = "share"
    note: Name = ""


class Scores(_Content):
    """The main metrics of one set of images, in large type."""

    block: Literal["scores"] = "scores"
    title: Name
    scores: tuple[Score, ...]


ColumnKind = Literal["text", "count", "number", "share", "share_estimate"]
CellValue = Name | float | Estimate | None
Header = tuple[str, ColumnKind]
"""The title and the kind of a column."""
Row = Sequence[CellValue]


class Column(_Content):
    """One column of a table.

    Attributes:
        title: The header.
        kind: The type of the values: strings for `text`; numbers or None for `count`, `number`,
            and `share`; estimates or None for `share_estimate`, sorted by their value.
        values: One per row.
    """

    title: Name
    kind: ColumnKind
    values: tuple[CellValue, ...]


class Table(_Content):
    """A sortable table. The first column names the row."""

    block: Literal["table"] = "table"
    title: Name
    columns: tuple[Column, ...]
    note: Name = ""

    @classmethod
    def from_rows(
        cls, title: str, headers: Sequence[Header], rows: Sequence[Row], note: str = ""
    ) -> "Table":
        """Build a table from rows."""
        columns = []
        for index, (header, kind) in enumerate(headers):
            values = tuple(row[index] for row in rows)
            column = Column(title=header, kind=kind, values=values)
            columns.append(column)

        return cls(title=title, columns=tuple(columns), note=note)


class Series(_Content):
    """One line of a chart, with an interval around y if there are bounds. None leaves a gap."""

    name: Name
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    style: Literal["line", "points", "dashed"] = "line"


class Chart(_Content):
    """Lines over one axis. Hovering displays the values."""

    block: Literal["chart"] = "chart"
    title: Name
    x_title: Name
    y_title: Name
    x_unit: Literal["share", "number", "count"] = "number"
    y_unit: Literal["share", "number"] = "number"
    series: tuple[Series, ...]
    note: Name = ""


class GalleryItem(_Content):
    """One image of a gallery, with its title and further lines of text.

    Attributes:
        image: Index into the report's images.
        overlay: Index of a second image beside it, such as a Grad-CAM.
        is_wrong: Whether the prediction is wrong; None for no mark.
    """

    image: int
    overlay: int | None = None
    title: Name
    lines: tuple[Name, ...] = ()
    is_wrong: bool | None = None


class Gallery(_Content):
    """Images with captions."""

    block: Literal["gallery"] = "gallery"
    title: Name
    items: tuple[GalleryItem, ...]
    note: Name = ""


class ConfusionMatrix(_Content):
    """A confusion matrix of N images. A click on a cell displays its images.

    Attributes:
        classes: Names in index order.
        labels: N indices of the true classes.
        predicted: N indices of the predicted classes.
        confidence: N confidences, in thousandths.
        names: N names, such as paths.
        images: N indices into the report's images; -1 for an image that is not included.
    """

    block: Literal["confusion_matrix"] = "confusion_matrix"
    title: Name
    classes: tuple[Name, ...]
    labels: tuple[int, ...]
    predicted: tuple[int, ...]
    confidence: tuple[int, ...]
    names: tuple[Name, ...]
    images: tuple[int, ...]
    note: Name = ""


Block = Annotated[
    Text | Facts | Code | Scores | Table | Chart | Gallery | ConfusionMatrix,
    Field(discriminator="block"),
]


class Section(_Content):
    """A section of the page; `key` is its anchor."""

    key: Name
    title: Name
    blocks: tuple[Block, ...]


class Report(_Content):
    """The content of one page. Blocks refer to `images`, which are `data:` URLs, by index."""

    title: Name
    subtitle: Name
    sections: tuple[Section, ...]
    images: tuple[str, ...] = ()

    @classmethod
    def from_sections(
        cls, title: str, subtitle: str, sections: Iterable[Section], images: Iterable[str]
    ) -> "Report":
        """Build a report without the sections that have no blocks."""
        used = [section for section in sections if section.blocks]
        return cls(title=title, subtitle=subtitle, sections=tuple(used), images=tuple(images))
