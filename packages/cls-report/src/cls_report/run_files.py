"""Read the files of a run folder, which may be damaged, edited, or from somebody else.

Every reader checks that the file is a regular one of a bounded size, before it reads it, and
raises a ReportError with the path and the problem.
"""

import csv
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cls_export.contract.errors import format_validation_error
from cls_export.contract.files import read_bytes
from cls_export.contract.run_layout import RunPaths
from cls_report.errors import ReportError
from cls_report.statistics.estimates import Estimate

_MAX_CONFIG_BYTES = 500_000
_MAX_METRICS_BYTES = 10_000_000
_MAX_EPOCHS = 100_000
_MAX_JSON_BYTES = 50_000_000
_MAX_JSON_VALUES = 2_000_000
_MAX_DEPTH = 50
_MAX_INTEGER_BITS = 64

Count = Annotated[int, Field(ge=0, lt=2**63)]


class RunFile(BaseModel):
    """What a report uses of a JSON file. Other keys are ignored.

    Attributes:
        advice: What to do if the file is damaged; `{evaluate_command}` stands for the command.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    advice: ClassVar[str] = "delete it to write the report without it"


Content = TypeVar("Content", bound=RunFile)


class ScoredWeights(RunFile):
    """The monitored metric of the evaluated weights; epochs are counted from 0."""

    metric: str
    value: float
    epoch: Count
    weights: str


class OnnxCheck(RunFile):
    """The comparison of the exported model with PyTorch."""

    max_logit_difference: float


class EvaluationFile(RunFile):
    """evaluation.json."""

    advice: ClassVar[str] = "write it again with `{evaluate_command}`"

    scored: ScoredWeights | None = None
    onnx: OnnxCheck | None = None


class FitFile(RunFile):
    """fit.json; summary.json has the same keys."""

    advice: ClassVar[str] = "restore it from a copy"

    fit_seconds: float | None = None
    train_images_per_second: float | None = None
    stopped: str | None = None
    warnings: tuple[str, ...] = ()


class SizeRange(RunFile):
    """Minimum, median, and maximum of the width and height in pixels."""

    width: tuple[float, float, float]
    height: tuple[float, float, float]


class StatisticsFile(RunFile):
    """statistics.json: class counts and image sizes by split."""

    counts: dict[str, dict[str, Count]] = {}
    sizes: dict[str, SizeRange] = {}

    @model_validator(mode="after")
    def _check_splits(self) -> Self:
        if self.counts.keys() != self.sizes.keys():
            raise ValueError("counts and sizes have different splits")
        return self


class DataCheckFile(RunFile):
    """data_check.json: the findings by rule, and the configuration of the data gate."""

    findings: dict[str, tuple[dict[str, Any], ...]] = {}
    config: dict[str, Any] = {}


class ModelInfoFile(RunFile):
    """model_info.json: size and cost of the network."""

    image: tuple[Count, Count]
    parameters: Count
    trainable: Count
    weights_mb: float
    flops: float | None = None
    latency_ms: float
    device: str
    threads: Count


class OriginFile(RunFile):
    """origin.json: the command and the package versions that started the run."""

    arguments: tuple[str, ...] = ()
    versions: dict[str, str] = {}


class RobustnessCurve(RunFile):
    """Top-1 accuracy at each level of one degradation."""

    unit: str
    levels: Annotated[tuple[float, ...], Field(min_length=1)]
    top1: tuple[Estimate, ...]

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len(self.levels) != len(self.top1):
            raise ValueError(f"{len(self.levels)} levels, but {len(self.top1)} values of top1")
        return self


class RobustnessFile(RunFile):
    """degradation.json."""

    untouched: Estimate
    curves: dict[str, RobustnessCurve]


class DataSettings(RunFile):
    """The settings of the data that a report uses."""

    root: str
    annotations: str | None = None
    fold: Annotated[int, Field(ge=0)] | None = None
    folds: Annotated[int, Field(ge=1, le=10_000)] | None = None


class ModelSettings(RunFile):
    """The settings of the model that a report uses."""

    name: str | None = None
    target: Annotated[str | None, Field(alias="_target_")] = None


class RunSettings(RunFile):
    """The settings of a run that a report uses."""

    seed: Count | None = None
    data: DataSettings
    model: ModelSettings


def read_json(path: Path, schema: type[Content]) -> Content | None:
    """Read a JSON file; None if it does not exist.

    Raises:
        ReportError: The file cannot be read, is too large, or has other content.
    """
    if not os.path.lexists(path):
        return None
    data = read_bytes(path, error=ReportError, max_bytes=_MAX_JSON_BYTES)
    if data.count(b",") > _MAX_JSON_VALUES:  # they would take gigabytes
        raise ReportError(f"{path}: more than {_MAX_JSON_VALUES:,} values; {_advise(schema, path)}")
    try:
        return schema.model_validate_json(data)
    except ValidationError as error:
        problems = format_validation_error(error)
        raise ReportError(f"{path} is damaged: {problems}; {_advise(schema, path)}") from error


def _advise(schema: type[RunFile], path: Path) -> str:
    run = RunPaths(path.parent)
    return schema.advice.format(evaluate_command=run.evaluate_command)


def read_config_text(path: Path) -> str:
    """Read the text of config.yaml.

    Raises:
        ReportError: The file cannot be read, is larger than 0.5 MB, or is not UTF-8.
    """
    return _read_text(path, _MAX_CONFIG_BYTES)


def parse_config(text: str, path: Path) -> tuple[dict[str, Any], RunSettings]:
    """Return all settings as plain values with string keys, and those that a report uses.

    Raises:
        ReportError: The text is not YAML of a run's settings.
    """
    try:
        settings = _to_plain_values(yaml.load(text, _ConfigLoader))
        if not isinstance(settings, dict):
            raise TypeError("expected keys and values")
        return settings, RunSettings.model_validate(settings)
    except ValidationError as error:
        problem = format_validation_error(error)
    except Exception as error:  # PyYAML raises many kinds of errors for explicit tags
        problem = " ".join(str(error).split()) or type(error).__name__
    raise ReportError(f"{path} is damaged, or was edited: {problem}")


class _ConfigLoader(yaml.SafeLoader):
    """Refuses aliases, which can expand to any size, and deep nesting."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported")
        if self._depth == _MAX_DEPTH:
            raise yaml.YAMLError(f"more than {_MAX_DEPTH} levels")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _to_plain_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _to_plain_values(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_to_plain_values(inner) for inner in value]
    if isinstance(value, int) and value.bit_length() > _MAX_INTEGER_BITS:
        return hex(value)  # Python refuses to write it with decimal digits
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def read_metrics(path: Path) -> tuple[dict[str, float], ...]:
    """Read metrics.csv: one dictionary per epoch; empty if the file does not exist.

    Raises:
        ReportError: The file cannot be read, is too large, or is not a table of numbers with an
            epoch in each row.
    """
    if not os.path.lexists(path):
        return ()
    text = _read_text(path, _MAX_METRICS_BYTES)
    lines = text.splitlines()
    reader = csv.reader(lines, strict=True)
    epochs: list[dict[str, float]] = []
    try:
        names = next(reader, [])
        if "epoch" not in names:
            raise ValueError("no column epoch")
        if not text.endswith("\n"):
            raise ValueError("cut short")
        for row in reader:
            epoch = _parse_row(names, row)
            epochs.append(epoch)
            if len(epochs) > _MAX_EPOCHS:
                raise ValueError(f"more than {_MAX_EPOCHS:,} epochs")
    except (csv.Error, ValueError) as error:
        line = max(1, reader.line_num)  # 0 for an empty file
        raise ReportError(
            f"{path}:{line}: damaged ({error}); delete the file to write the report without "
            "training curves"
        ) from error
    return tuple(epochs)


def _parse_row(names: list[str], row: list[str]) -> dict[str, float]:
    if len(row) != len(names):
        raise ValueError(f"{len(row)} values for {len(names)} columns")
    values = {name: float(text) for name, text in zip(names, row, strict=True) if text}
    epoch = values.get("epoch", -1.0)
    if not 0 <= epoch < 2**53:
        raise ValueError("no epoch, or a wrong one")
    return values


def _read_text(path: Path, max_bytes: int) -> str:
    data = read_bytes(path, error=ReportError, max_bytes=max_bytes)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReportError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start})"
        ) from error
