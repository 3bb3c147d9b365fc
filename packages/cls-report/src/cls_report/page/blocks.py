"""What a report says: sections of blocks, each block one way of showing something. The page shows blocks, no more.

Shares are 0 to 1, and the page shows them as percent. Text is plain text: no markup in it is ever obeyed.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Text(_Content):
    """A paragraph; `tone` says how much it matters."""

    block: Literal["text"] = "text"
    text: str
    tone: Literal["plain", "verdict", "warning", "faint"] = "plain"


class Facts(_Content):
    """Names and values, such as model, commit, seconds."""

    block: Literal["facts"] = "facts"
    facts: dict[str, str]


class Code(_Content):
    """Text to copy as it is: a command, a configuration. A long one is folded away at first."""

    block: Literal["code"] = "code"
    title: str
    text: str
    folded: bool = False


class Estimate(_Content):
    """A figure with its 95 % interval. None for what the images cannot say, such as the recall of an absent class."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Score(_Content):
    """One figure of the summary: `top-1`, 0.89 (0.85-0.92), `324 of 364`."""

    title: str
    estimate: Estimate
    unit: Literal["share", "number"]
    note: str = ""


class Scores(_Content):
    """The figures of one set of images, shown large."""

    block: Literal["scores"] = "scores"
    title: str
    scores: tuple[Score, ...]


class Column(_Content):
    """One column of a table: as many values as the others have, each of its kind.

    Attributes:
        title: its head.
        kind: `text`: strings; `count`, `number`, `share`: numbers, or None; `share_estimate`, `number_estimate`:
            estimates, sorted by their value.
        values: from the first row to the last.
    """

    title: str
    kind: Literal["text", "count", "number", "share", "share_estimate", "number_estimate"]
    values: tuple[str | float | Estimate | None, ...]


class Table(_Content):
    """Columns of equal length, which the reader sorts by any of them; the first one names the row."""

    block: Literal["table"] = "table"
    title: str
    columns: tuple[Column, ...]
    note: str = ""


class Series(_Content):
    """One line of a chart: y over x, with bounds of its interval where there are any; a gap at None."""

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    style: Literal["line", "points", "dashed"] = "line"


class Chart(_Content):
    """Lines over one axis; the reader points at them for their values."""

    block: Literal["chart"] = "chart"
    title: str
    x_title: str
    y_title: str
    x_unit: Literal["share", "number", "count"] = "number"
    y_unit: Literal["share", "number"] = "number"
    series: tuple[Series, ...]
    note: str = ""


class Shown(_Content):
    """One image of a gallery.

    Attributes:
        picture: its place among the report's pictures.
        overlay: place of the picture that explains it, such as a Grad-CAM; None where there is none.
        title: what the network answered.
        lines: what else is known of it: the truth, the confidence, the file.
        wrong: whether the answer is wrong; None where that is not the question.
    """

    picture: int
    overlay: int | None = None
    title: str
    lines: tuple[str, ...] = ()
    wrong: bool | None = None


class Gallery(_Content):
    """Images to look at."""

    block: Literal["gallery"] = "gallery"
    title: str
    shown: tuple[Shown, ...]
    note: str = ""


class Confusion(_Content):
    """Which classes are taken for which; a cell opens the images behind it.

    Attributes:
        title: of which images.
        classes: names in index order.
        truth: class of each image, by its index.
        answer: class that was answered for it.
        confidence: of the answer, per mille, to the nearest.
        names: of the images, such as their paths.
        pictures: place of each image's picture among the report's; -1 for those that the file has no room for.
    """

    block: Literal["confusion"] = "confusion"
    title: str
    classes: tuple[str, ...]
    truth: tuple[int, ...]
    answer: tuple[int, ...]
    confidence: tuple[int, ...]
    names: tuple[str, ...]
    pictures: tuple[int, ...]
    note: str = ""


Block = Annotated[
    Text | Facts | Code | Scores | Table | Chart | Gallery | Confusion, Field(discriminator="block")
]


class Section(_Content):
    """A chapter of the report; `key` is its anchor."""

    key: str
    title: str
    blocks: tuple[Block, ...]


class Report(_Content):
    """All that one page shows.

    Attributes:
        title: such as the run's name.
        subtitle: what kind of report it is, and of when.
        sections: in the order of reading.
        pictures: `data:` addresses of the images, which blocks name by their place.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    pictures: tuple[str, ...] = ()
