"""Read the files of an evaluated run."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cls_data import Predictions
from cls_export.contract.bundle_layout import LABELS_FILE
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.contract.run_layout import RunPaths
from cls_report.errors import ReportError
from cls_report.run_files import (
    DataCheckFile,
    EvaluationFile,
    FitFile,
    ModelInfoFile,
    OriginFile,
    RobustnessFile,
    RunSettings,
    StatisticsFile,
    parse_config,
    read_config_text,
    read_json,
    read_metrics,
)
from cls_report.statistics.evaluation import Evaluation

SPLITS = ("valid", "test")
_FREE_SETTINGS = ("seed", "run")  # runs of one recipe may differ in them


@dataclass(frozen=True)
class Run:
    """The folder of an evaluated run. Files that do not exist are treated as empty.

    Each property raises a ReportError, DataError, or BundleError with the path of its file if the
    file is damaged.
    """

    path: Path

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Run":
        """Open the folder of an evaluated run.

        Raises:
            DataError: The predictions are damaged.
            ReportError: The folder holds no run, a run without predictions, or a damaged one.
        """
        run = cls(Path(path))
        if not os.path.lexists(run.paths.config):
            raise ReportError(
                f"{path}: not a run folder (no config.yaml); expected a folder such as runs/NAME"
            )
        run.check_settings()
        if not run.predictions:
            raise ReportError(
                f"{path}: the run has not been evaluated (no predictions/); "
                f"run: {run.paths.evaluate_command}"
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

    @property
    def config(self) -> dict[str, Any]:
        """All settings, as plain values with string keys."""
        config, _ = self._parsed_config
        return config

    @property
    def settings(self) -> RunSettings:
        """The settings that a report uses."""
        _, settings = self._parsed_config
        return settings

    def check_settings(self) -> None:
        """Raise a ReportError if config.yaml is damaged."""
        assert self._parsed_config

    @cached_property
    def _parsed_config(self) -> tuple[dict[str, Any], RunSettings]:
        return parse_config(self.config_text, self.paths.config)

    @cached_property
    def config_text(self) -> str:
        """The text of config.yaml."""
        return read_config_text(self.paths.config)

    @cached_property
    def labels(self) -> LabelsMapping:
        """The exported labels mapping, or the one from the start of training if not exported."""
        file = self.paths.bundle / LABELS_FILE
        if not os.path.lexists(file):
            file = self.paths.labels
        return LabelsMapping.load(file)

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """Predictions by split, valid first."""
        predictions = {}
        for split in SPLITS:
            file = self.paths.predictions / f"{split}.npz"
            if os.path.lexists(file):
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
            if tuple(predictions.classes.tolist()) != self.labels.classes:
                raise ReportError(
                    f"{self.paths.predictions / split}.npz and the labels mapping of {self.path} "
                    "have different classes; one of them belongs to another run"
                )
            evaluation = Evaluation.from_predictions(split, predictions, calibration)
            evaluations[split] = evaluation

        return evaluations

    @cached_property
    def history(self) -> tuple[dict[str, float], ...]:
        """Logged metrics, one dictionary per epoch."""
        return read_metrics(self.paths.metrics)

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
    def statistics(self) -> StatisticsFile:
        """Class counts and image sizes by split."""
        return read_json(self.paths.statistics, StatisticsFile) or StatisticsFile()

    @cached_property
    def evaluation(self) -> EvaluationFile:
        """The evaluated weights, and the check of the exported model."""
        return read_json(self.paths.evaluation, EvaluationFile) or EvaluationFile()

    @cached_property
    def fit(self) -> FitFile:
        """The result of training. Versions before 0.2 wrote it to summary.json alone."""
        fit = read_json(self.paths.fit, FitFile)
        return fit or read_json(self.paths.summary, FitFile) or FitFile()

    @cached_property
    def data_check(self) -> DataCheckFile | None:
        """The findings of the data gate; None if it was off."""
        return read_json(self.paths.data_check, DataCheckFile)

    @cached_property
    def model_info(self) -> ModelInfoFile | None:
        """Size and cost of the network; None if they were not measured."""
        return read_json(self.paths.model_info, ModelInfoFile)

    @cached_property
    def origin(self) -> OriginFile:
        """The command and the package versions that started the run."""
        return read_json(self.paths.origin, OriginFile) or OriginFile()

    @cached_property
    def robustness(self) -> RobustnessFile | None:
        """The accuracy on degraded images; None if it was not measured."""
        return read_json(self.paths.robustness, RobustnessFile)

    @property
    def data_root(self) -> Path:
        """The data root that image names are relative to."""
        return Path(self.settings.data.root)


def common_split(runs: Sequence[Run]) -> str:
    """Return test if every run was evaluated on it, otherwise valid."""
    if all("test" in run.predictions for run in runs):
        return "test"
    return "valid"


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
