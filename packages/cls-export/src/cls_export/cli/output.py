"""How predictions are written: a table for people, JSON lines and CSV for programs."""

import csv
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TextIO

from cls_export.runtime.predictions import Prediction


class PredictionWriter(ABC):
    """Writes one prediction after another to a text stream."""

    def __init__(self, stream: TextIO, classes: tuple[str, ...], with_logits: bool) -> None:
        self._stream = stream
        self._classes = classes
        self._with_logits = with_logits

    @abstractmethod
    def write(self, path: Path, prediction: Prediction) -> None:
        """Write the answer for the image at `path`."""

    def close(self) -> None:  # noqa: B027  (most writers hold nothing back)
        """Write what was held back."""


class JSONLinesWriter(PredictionWriter):
    """An object a line: image, label, confidence, rejected, top_k as [label, probability], logits by class name."""

    def write(self, path: Path, prediction: Prediction) -> None:
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
        print(
            json.dumps(row), file=self._stream
        )  # ASCII: a file may have a name that no encoding holds


class CSVWriter(PredictionWriter):
    """A header, then image, label, confidence, rejected and, when asked for, a `logit:NAME` column a class."""

    def __init__(self, stream: TextIO, classes: tuple[str, ...], with_logits: bool) -> None:
        super().__init__(stream, classes, with_logits)
        self._csv = csv.writer(stream, lineterminator="\n")
        logits = [f"logit:{name}" for name in classes] if with_logits else []
        self._csv.writerow(["image", "label", "confidence", "rejected", *logits])

    def write(self, path: Path, prediction: Prediction) -> None:
        """Write one row."""
        logits = prediction.logits.tolist() if self._with_logits else []
        self._csv.writerow(
            [
                path,
                prediction.label,
                prediction.confidence,
                str(prediction.rejected).lower(),
                *logits,
            ]
        )


class TableWriter(PredictionWriter):
    """Aligned columns; held back to the end, since their width is known only then."""

    def __init__(self, stream: TextIO, classes: tuple[str, ...], with_logits: bool) -> None:
        super().__init__(stream, classes, with_logits)
        self._rows: list[tuple[str, str]] = []

    def write(self, path: Path, prediction: Prediction) -> None:
        """Hold one row back."""
        answers = "   ".join(
            f"{label!r:<8} {probability:6.1%}" for label, probability in prediction.top_k
        )
        self._rows.append((str(path), f"{answers}   rejected" if prediction.rejected else answers))

    def close(self) -> None:
        """Write the table."""
        width = max((len(image) for image, _ in self._rows), default=0)
        for image, answers in self._rows:
            print(f"{image:<{width}}  {answers}", file=self._stream)


FORMATS: dict[str, type[PredictionWriter]] = {
    "csv": CSVWriter,
    "jsonl": JSONLinesWriter,
    "table": TableWriter,
}
