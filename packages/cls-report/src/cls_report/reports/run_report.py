"""The report of one run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cls_data import Predictions
from cls_export.contract.calibration import FITS, CalibrationError, cross_fitted, softmax
from cls_report.page.blocks import Block, Chart, Report, Section, Series, Text
from cls_report.page.thumbnails import Pictures
from cls_report.reports.evaluation_sections import (
    Overlays,
    classes_table,
    confusion_block,
    mistakes_gallery,
    reliability_chart,
    risk_coverage_chart,
    scores_block,
    slice_tables,
)
from cls_report.reports.run_sections import (
    cost_section,
    data_section,
    reproduction_section,
    training_section,
)
from cls_report.run_folder import Run
from cls_report.statistics.calibration import calibration_error
from cls_report.statistics.evaluated import Answers
from cls_report.statistics.intervals import Clusters, Floats, in_words
from cls_report.statistics.scores import EvaluationScores, score


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """One split of a run, scored; `calibrated` where calibration means anything."""

    split: str
    predictions: Predictions
    answers: Answers
    calibrated: Answers | None
    scores: EvaluationScores
    overlays: Overlays


def run_report(run: Run) -> Report:
    """Make the report of an evaluated run."""
    pictures = Pictures(run.root)
    parts = [_evaluated(run, split, pictures) for split in run.predictions]
    train_counts = run.json("statistics.json").get("counts", {}).get("train", {})
    sections = [
        _summary(run, parts),
        Section(
            key="classes",
            title="Classes",
            blocks=tuple(
                classes_table(f"Classes on {part.split}", part.scores, train_counts)
                for part in reversed(parts)
            ),
        ),
        Section(key="mistakes", title="Mistakes", blocks=tuple(_mistakes(parts, pictures))),
        _confidence(parts),
        _slices(parts),
        _degradation(run),
        training_section(run),
        data_section(run),
        cost_section(run),
        reproduction_section(run),
    ]
    kept = tuple(section for section in sections if section is not None and section.blocks)
    return Report(
        title=run.name, subtitle=_subtitle(run), sections=kept, pictures=tuple(pictures.addresses)
    )


def _subtitle(run: Run) -> str:
    model = run.config["model"].get("name") or run.config["model"].get("_target_", "")
    return f"{model}, {len(run.labels.classes)} classes, seed {run.config.get('seed')}"


def _evaluated(run: Run, split: str, pictures: Pictures) -> _Evaluated:
    predictions = run.predictions[split]
    answers = Answers.of(predictions)
    probabilities = calibrated(run, split)
    return _Evaluated(
        split,
        predictions,
        answers,
        None if probabilities is None else Answers.of(predictions, probabilities),
        score(answers),
        _overlays(run.path / "predictions" / f"gradcam_{split}.npz", pictures),
    )


def calibrated(run: Run, split: str) -> Floats | None:
    """Return calibrated probabilities [N, C] that no image had a part in fitting; None without a calibration.

    The calibration was fitted to valid. There each half is judged by a fit to the other; elsewhere by the file's own.
    """
    calibration = run.labels.calibration
    if calibration is None:
        return None
    predictions = run.predictions[split]
    if split != "valid":
        return softmax(calibration.apply(predictions.logits))
    groups = Clusters.from_groups(predictions.groups).of
    try:
        return cross_fitted(
            predictions.logits, predictions.labels, FITS[calibration.method], groups=groups
        )
    except CalibrationError:
        return None


def _overlays(file: Path, pictures: Pictures) -> Overlays:
    if not file.is_file():
        return lambda image: None
    with np.load(file, allow_pickle=False) as stored:
        heats: dict[str, NDArray[np.uint8]] = dict(
            zip(map(str, stored["ids"]), stored["maps"], strict=True)
        )
    return lambda image: pictures.heat_map(image, heats[image]) if image in heats else None


def _summary(run: Run, parts: list[_Evaluated]) -> Section:
    blocks: list[Block] = [scores_block(part.split, part.scores) for part in reversed(parts)]
    if [part.split for part in parts] == ["valid"]:
        blocks.append(
            Text(
                tone="warning",
                text="There is no test split: these figures are of valid, by which the best "
                "weights were chosen, so they flatter a little.",
            )
        )
    if scored := run.json("evaluation.json").get("scored"):
        blocks.append(
            Text(
                text=f"The weights are the {'averaged' if scored['weights'] == 'ema' else 'raw'} ones of "
                f"epoch {scored['epoch'] + 1}, which earned {scored['metric']} {scored['value']:.4f} in "
                "training."
            )
        )
    blocks += [
        Text(text=line, tone="warning") for line in run.json("summary.json").get("warnings", [])
    ]
    return Section(key="summary", title="Summary", blocks=tuple(blocks))


def _mistakes(parts: list[_Evaluated], pictures: Pictures) -> Iterator[Block]:
    # Valid comes last: where there is a test split, its pictures have the first claim on the room.
    for part in reversed(parts):
        title = f"The surest mistakes on {part.split}"
        yield mistakes_gallery(title, part.predictions, part.answers, pictures, part.overlays)
        yield confusion_block(
            f"Who is taken for whom on {part.split}", part.predictions, part.answers, pictures
        )


def _confidence(parts: list[_Evaluated]) -> Section:
    blocks: list[Block] = []
    for part in reversed(parts):
        known = {"softmax": part.answers}
        if part.calibrated is not None:
            known["calibrated"] = part.calibrated
            after, before = (_error(answers) for answers in (part.calibrated, part.answers))
            blocks.append(
                Text(
                    text=f"Expected calibration error on {part.split}: {after}; uncalibrated {before}. "
                    "The bounds are of the true error; of few images, the error that is seen overstates it."
                )
            )
        blocks.append(
            reliability_chart(f"Does confidence mean what it says, on {part.split}", known)
        )
        blocks.append(
            risk_coverage_chart(f"What rejecting unsure answers brings, on {part.split}", known)
        )
    return Section(key="confidence", title="Confidence", blocks=tuple(blocks))


def _error(answers: Answers) -> str:
    return in_words(calibration_error(answers.confidence, answers.right, answers.clusters))


def _slices(parts: list[_Evaluated]) -> Section:
    tables = [
        table
        for part in reversed(parts)
        for table in slice_tables(part.split, part.predictions, part.answers)
    ]
    return Section(key="slices", title="Slices", blocks=tuple(tables))


def _degradation(run: Run) -> Section | None:
    curves = run.json("degradation.json")
    if not curves:
        return None
    charts = []
    for name, curve in curves["curves"].items():
        series = Series(
            name="top-1",
            x=tuple(curve["levels"]),
            y=tuple(each["value"] for each in curve["top1"]),
            low=tuple(each["low"] for each in curve["top1"]),
            high=tuple(each["high"] for each in curve["top1"]),
        )
        ends = (min(curve["levels"]), max(curve["levels"]))
        untouched = Series(
            name="untouched", x=ends, y=(curves["untouched"]["value"],) * 2, style="dashed"
        )
        both = (series, untouched)
        charts.append(
            Chart(title=name, x_title=curve["unit"], y_title="top-1", y_unit="share", series=both)
        )
    return Section(key="degradation", title="Worse images", blocks=tuple(charts))
