"""What a finished run left in its folder, read for a report."""

import csv
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from cls_data import Predictions
from cls_export import LabelsMapping
from cls_report.errors import ReportError

SPLITS = ("valid", "test")


@dataclass(frozen=True)
class Run:
    """A run's folder. What an earlier version did not write yet is empty, and the report says less."""

    path: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> "Run":
        """Open an evaluated run.

        Raises:
            ReportError: the folder holds no run, or one that was not evaluated.
        """
        run = cls(Path(path))
        if not (run.path / "config.yaml").is_file():
            raise ReportError(
                f"{path}: no run lies here (it has no config.yaml); expected a folder such as runs/NAME"
            )
        if not run.predictions:
            raise ReportError(
                f"{path}: the run has no predictions/ yet; uv run python -m cls_train.stages.evaluate {path} writes them"
            )
        return run

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.resolve().name

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        loaded: dict[str, Any] = yaml.safe_load(self.config_text)
        return loaded

    @cached_property
    def config_text(self) -> str:
        """The resolved configuration, as it is written."""
        return (self.path / "config.yaml").read_text()

    @cached_property
    def labels(self) -> LabelsMapping:
        """The exported labels mapping, with its calibration; that of training's start where nothing was exported."""
        exported = self.path / "export" / "labels_mapping.json"
        return LabelsMapping.load(
            exported if exported.is_file() else self.path / "labels_mapping.json"
        )

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """Answers by split, valid first."""
        files = {split: self.path / "predictions" / f"{split}.npz" for split in SPLITS}
        return {split: Predictions.load(file) for split, file in files.items() if file.is_file()}

    @cached_property
    def history(self) -> tuple[dict[str, float], ...]:
        """A row an epoch, by the names that training logs."""
        file = self.path / "metrics.csv"
        if not file.is_file():
            return ()
        with file.open(newline="") as stream:
            return tuple(
                {name: float(value) for name, value in row.items() if value}
                for row in csv.DictReader(stream)
            )

    @property
    def root(self) -> Path:
        """The data root, which the predictions' ids are relative to."""
        return Path(self.config["data"]["root"])

    def json(self, name: str) -> dict[str, Any]:
        """Read one of the folder's JSON files; empty where there is none."""
        file = self.path / name
        if not file.is_file():
            return {}
        read: dict[str, Any] = json.loads(file.read_bytes())
        return read
