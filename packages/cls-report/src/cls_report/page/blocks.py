"""The content of a page: sections of blocks.

Shares are 0 to 1 and are displayed as percentages. Text is plain text; markup in it is escaped.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cls_report.statistics.estimates import Estimate


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Text(_Content):
    """A paragraph."""

    block: Literal["text"] = "text"
    text: str
    tone: Literal["plain", "verdict", "warning", "muted"] = "plain"


class Facts(_Content):
    """Names and values, such as model, commit, and duration."""

    block: Literal["facts"] = "facts"
    facts: dict[str, str]


class Code(_Content):
    """Text to copy, such as a command. A folded block opens on a click."""

    block: Literal["code"] = "code"
    title: str
    text: str
    folded: bool = False


class Score(_Content):
    """One metric, such as `top-1`, 0.89 (0.85-0.92), and the note `324 of 364`."""

    title: str
    estimate: Estimate
    unit: Literal["share", "number"] = "share"
    note: str = ""


class Scores(_Content):
    """The main metrics of one set of images, in large type."""

    block: Literal["scores"] = "scores"
    title: str
    scores: tuple[Score, ...]


ColumnKind = Literal["text", "count", "number", "share", "share_estimate"]
CellValue = str | float | Estimate | None
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

    title: str
    kind: ColumnKind
    values: tuple[CellValue, ...]


class Table(_Content):
    """A sortable table. The first column names the row."""

    block: Literal["table"] = "table"
    title: str
    columns: tuple[Column, ...]
    note: str = ""

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

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    style: Literal["line", "points", "dashed"] = "line"


class Chart(_Content):
    """Lines over one axis. Hovering displays the values."""

    block: Literal["chart"] = "chart"
    title: str
    x_title: str
    y_title: str
    x_unit: Literal["share", "number", "count"] = "number"
    y_unit: Literal["share", "number"] = "number"
    series: tuple[Series, ...]
    note: str = ""


class GalleryItem(_Content):
    """One image of a gallery, with its title and further lines of text.

    Attributes:
        image: Index into the report's images.
        overlay: Index of a second image beside it, such as a Grad-CAM.
        is_wrong: Whether the prediction is wrong; None for no mark.
    """

    image: int
    overlay: int | None = None
    title: str
    lines: tuple[str, ...] = ()
    is_wrong: bool | None = None


class Gallery(_Content):
    """Images with captions."""

    block: Literal["gallery"] = "gallery"
    title: str
    items: tuple[GalleryItem, ...]
    note: str = ""


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
    title: str
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    predicted: tuple[int, ...]
    confidence: tuple[int, ...]
    names: tuple[str, ...]
    images: tuple[int, ...]
    note: str = ""


Block = Annotated[
    Text | Facts | Code | Scores | Table | Chart | Gallery | ConfusionMatrix,
    Field(discriminator="block"),
]


class Section(_Content):
    """A section of the page; `key` is its anchor."""

    key: str
    title: str
    blocks: tuple[Block, ...]


class Report(_Content):
    """The content of one page. Blocks refer to `images`, which are `data:` URLs, by index."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    images: tuple[str, ...] = ()

    @classmethod
    def from_sections(
        cls, title: str, subtitle: str, sections: Iterable[Section], images: Iterable[str]
    ) -> "Report":
        """Build a report without the sections that have no blocks."""
        used = [section for section in sections if section.blocks]
        return cls(title=title, subtitle=subtitle, sections=tuple(used), images=tuple(images))
