"""metrics.csv that survives an interruption."""

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only


class ResumableCSVLogger(Logger):
    """Writes `save_dir/metrics.csv`, a row for each call, a column for each metric, and `step`.

    Lightning's own CSVLogger deletes the file when it finds one. This one goes on: the first row of a resumed run
    drops the rows of that step and later ones, which the interrupted run had written after its last checkpoint.

    Args:
        save_dir: an existing or future folder.
    """

    def __init__(self, save_dir: str | os.PathLike[str]) -> None:
        super().__init__()
        self._path = Path(save_dir) / "metrics.csv"
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """Nothing: the run's folder has the name."""
        return ""

    @property
    def version(self) -> str:
        """Nothing: the run's folder has the name."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder of metrics.csv."""
        return str(self._path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row; a metric that is new adds its column to all rows."""
        row = {"step": str(step if step is not None else 0), **{name: repr(float(v)) for name, v in metrics.items()}}
        row.pop("epoch", None)
        if "epoch" in metrics:
            row["epoch"] = str(int(metrics["epoch"]))
        if self._columns is None:
            self._begin(int(row["step"]))
        assert self._columns is not None
        if new := [name for name in row if name not in self._columns]:
            self._rewrite(self._rows(), [*self._columns, *sorted(new)])
        with self._path.open("a", newline="", encoding="utf-8") as stream:
            csv.DictWriter(stream, self._columns, restval="", lineterminator="\n").writerow(row)

    def _begin(self, step: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        rows = [row for row in self._rows() if int(row["step"]) < step]
        self._rewrite(rows, list(rows[0]) if rows else ["epoch", "step"])

    def _rows(self) -> list[dict[str, str]]:
        if not self._path.exists():
            return []
        with self._path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def _rewrite(self, rows: list[dict[str, str]], columns: list[str]) -> None:
        self._columns = columns
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with draft.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(draft, self._path)
