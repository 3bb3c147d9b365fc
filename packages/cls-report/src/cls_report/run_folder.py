"""Read the files of an evaluated run."""

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from cls_data import Predictions
from cls_export.contract.bundle_layout import LABELS_FILE
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.contract.run_layout import RunPaths
from cls_report.errors import ReportError
from cls_report.statistics.evaluation import Evaluation

SPLITS = ("valid", "test")
_FREE_SETTINGS = ("seed", "run")  # runs of one recipe may differ in them


@dataclass(frozen=True)
class Run:
    """The folder of an evaluated run. Files that do not exist are treated as empty."""

    path: Path

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Run":
        """Open the folder of an evaluated run.

        Raises:
            ReportError: The folder holds no run, or a run without predictions.
        """
        run = cls(Path(path))
        if not run.paths.config.is_file():
            raise ReportError(
                f"{path}: not a run folder (no config.yaml); expected a folder such as runs/NAME"
            )
        if not run.predictions:
            raise ReportError(
                f"{path}: the run has not been evaluated (no predictions/); "
                f"run: uv run python -m cls_train.stages.evaluate {path}"
            )
        return run

    @property
    def paths(self) -> RunPaths:
        """Paths of the run's files."""
        return RunPaths(self.path)

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.resolve().name

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        config: dict[str, Any] = yaml.safe_load(self.config_text)
        return config

    @cached_property
    def config_text(self) -> str:
        """The text of config.yaml."""
        return self.paths.config.read_text()

    @cached_property
    def labels(self) -> LabelsMapping:
        """The exported labels mapping, or the one from the start of training if not exported."""
        file = self.paths.bundle / LABELS_FILE
        if not file.is_file():
            file = self.paths.labels
        return LabelsMapping.load(file)

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """Predictions by split, valid first."""
        predictions = {}
        for split in SPLITS:
            file = self.paths.predictions / f"{split}.npz"
            if file.is_file():
                predictions[split] = Predictions.load(file)
        return predictions

    def predictions_for(self, split: str) -> Predictions:
        """Return the predictions for one split.

        Raises:
            ReportError: The run was not evaluated on the split.
        """
        if split not in self.predictions:
            raise ReportError(
                f"{self.path}: not evaluated on {split}, only on {', '.join(self.predictions)}"
            )
        return self.predictions[split]

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        """Evaluations by split, valid first."""
        calibration = self.labels.calibration
        evaluations = {}
        for split, predictions in self.predictions.items():
            evaluation = Evaluation.from_predictions(split, predictions, calibration)
            evaluations[split] = evaluation

        return evaluations

    @cached_property
    def history(self) -> tuple[dict[str, float], ...]:
        """Logged metrics, one dictionary per epoch."""
        if not self.paths.metrics.is_file():
            return ()

        epochs = []
        with self.paths.metrics.open(newline="") as stream:
            for row in csv.DictReader(stream):
                logged = {name: float(value) for name, value in row.items() if value}
                epochs.append(logged)

        return tuple(epochs)

    def metric_history(self, metric: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return epochs, counted from 1, and the metric's values; empty if it was not logged."""
        epochs = []
        values = []
        for row in self.history:
            if metric in row:
                epochs.append(row["epoch"] + 1)
                values.append(row[metric])

        return tuple(epochs), tuple(values)

    @cached_property
    def class_counts(self) -> dict[str, dict[str, int]]:
        """Images of each class by split."""
        statistics = read_json(self.paths.statistics)
        counts: dict[str, dict[str, int]] = statistics.get("counts", {})
        return counts

    @property
    def data_root(self) -> Path:
        """The data root that image names are relative to."""
        return Path(self.config["data"]["root"])


def common_split(runs: Sequence[Run]) -> str:
    """Return test if every run was evaluated on it, otherwise valid."""
    if all("test" in run.predictions for run in runs):
        return "test"
    return "valid"


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file; empty if it does not exist."""
    if not file.is_file():
        return {}
    data = file.read_bytes()
    content: dict[str, Any] = json.loads(data)
    return content


def differing_settings(first: Run, second: Run) -> dict[str, tuple[str, str]]:
    """Return the settings in which two runs differ, other than seeds and names.

    The result maps each key, such as `data.batch_size`, to both values as JSON; `-` is no value.
    """
    first_settings = _flatten_settings(first.config)
    second_settings = _flatten_settings(second.config)
    keys = {*first_settings, *second_settings}
    differing = {}
    for key in sorted(keys):
        first_value = first_settings.get(key, "-")
        second_value = second_settings.get(key, "-")
        if first_value != second_value:
            differing[key] = (first_value, second_value)

    return differing


def _flatten_settings(config: dict[str, Any]) -> dict[str, str]:
    settings: dict[str, str] = {}

    def add(key: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                add(f"{key}.{name}", inner)
            return

        if not key.endswith(".seed"):
            settings[key] = json.dumps(value, sort_keys=True, default=str)

    for name, value in config.items():
        if name not in _FREE_SETTINGS:
            add(str(name), value)

    return settings
