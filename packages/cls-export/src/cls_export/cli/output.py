"""Output formats of `cls-export predict`: a table, JSON lines, and CSV."""

import csv
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cls_export.contract.text import escape_control_characters

if TYPE_CHECKING:
    from cls_export.runtime.predictions import Prediction


def escape_line(text: str) -> str:
    """Escape control characters and line breaks."""
    return escape_control_characters(text).replace("\n", "\\n")


class PredictionWriter(ABC):
    """Writes predictions to a text stream, one by one."""

    def __init__(self, stream: TextIO, classes: tuple[str, ...], with_logits: bool) -> None:
        self._stream = stream
        self._classes = classes
        self._with_logits = with_logits

    @abstractmethod
    def write(self, path: Path, prediction: "Prediction") -> None:
        """Write the prediction for the image at `path`."""

    def close(self) -> None:  # noqa: B027  (most writers buffer nothing)
        """Write buffered predictions."""


class JSONLinesWriter(PredictionWriter):
    """Writes one object per line.

    Keys: image, label, confidence, rejected, top_k as [label, probability], and, if requested,
    logits by class name.
    """

    def write(self, path: Path, prediction: "Prediction") -> None:
        """Write one line."""
        row: dict[str, object] = {
            "image": str(path),
            "label": prediction.label,
            "confidence": prediction.confidence,
            "rejected": prediction.rejected,
            "top_k": prediction.top_k,
        }
        if self._with_logits:
            row["logits"] = dict(zip(self._classes, prediction.logits.tolist(), strict=True))
        # In ASCII, because a file name may be invalid in every encoding.
        print(json.dumps(row), file=self._stream)


class CSVWriter(PredictionWriter):
    """Writes columns image, label, confidence, rejected, and, if requested, `logit:CLASS`.

    Control characters are written as they are to a file, and escaped on a terminal.
    """

    def __init__(self, stream: TextIO, classes: tuple[str, ...], with_logits: bool) -> None:
        super().__init__(stream, classes, with_logits)
        self._csv = csv.writer(stream, lineterminator="\n")
        self._escape = escape_line if stream.isatty() else str
        header = ["image", "label", "confidence", "rejected"]
        if with_logits:
            for name in classes:
                header.append(self._escape(f"logit:{name}"))
        self._csv.writerow(header)

    def write(self, path: Path, prediction: "Prediction") -> None:
        """Write one row."""
        rejected = str(prediction.rejected).lower()
        image = self._escape(str(path))
        label = self._escape(prediction.label)
        row: list[object] = [image, label, prediction.confidence, rejected]
        if self._with_logits:
            row += prediction.logits.tolist()
        self._csv.writerow(row)


class TableWriter(PredictionWriter):
    """Writes aligned columns on `close`, when their width is known."""

    def __init__(self, stream: TextIO, classes: tuple[str, ...], with_logits: bool) -> None:
        super().__init__(stream, classes, with_logits)
        self._rows: list[tuple[str, str]] = []

    def write(self, path: Path, prediction: "Prediction") -> None:
        """Buffer one row."""
        cells = [f"{label!r:<8} {probability:6.1%}" for label, probability in prediction.top_k]
        if prediction.rejected:
            cells.append("rejected")
        self._rows.append((escape_line(str(path)), "   ".join(cells)))

    def close(self) -> None:
        """Write the table."""
        lengths = [len(path) for path, _ in self._rows]
        width = max(lengths, default=0)
        for path, cells in self._rows:
            print(f"{path:<{width}}  {cells}", file=self._stream)


FORMATS: dict[str, type[PredictionWriter]] = {
    "csv": CSVWriter,
    "jsonl": JSONLinesWriter,
    "table": TableWriter,
}
