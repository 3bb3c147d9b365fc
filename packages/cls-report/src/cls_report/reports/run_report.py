"""The report of one run."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cls_data.errors import DataError
from cls_data.npz_files import read_npz
from cls_report.errors import ReportError
from cls_report.page.blocks import Block, Chart, Report, Section, Series, Text
from cls_report.page.thumbnails import Thumbnails
from cls_report.reports.evaluation_blocks import (
    OverlayLookup,
    classes_table,
    confusion_matrix,
    mistakes_gallery,
    reliability_diagram,
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
from cls_report.statistics.estimates import format_percent
from cls_report.statistics.evaluation import Evaluation

_MAX_HEAT_MAP_BYTES = 100_000_000
_HEAT_MAP_ADVICE = "delete it to write the report without Grad-CAM"


def build_run_report(run: Run) -> Report:
    """Build the report of an evaluated run."""
    thumbnails = Thumbnails(run.data_root, run.labels.preprocessing)
    # The test split, if there is one, is first, also in the use of the thumbnail budget.
    evaluations = list(reversed(run.evaluations.values()))
    sections = [
        _summary_section(run, evaluations),
        _classes_section(run, evaluations),
        _mistakes_section(run, evaluations, thumbnails),
        _confidence_section(run, evaluations),
        _slices_section(evaluations),
        _robustness_section(run),
        training_section(run),
        data_section(run),
        cost_section(run),
        reproduction_section(run),
    ]

    settings = run.settings
    model = settings.model.name or settings.model.target or ""
    classes = len(run.labels.classes)
    seed = settings.seed
    noun = "class" if classes == 1 else "classes"
    subtitle = f"{model}, {classes} {noun}, seed {seed}"
    return Report.from_sections(run.name, subtitle, sections, thumbnails.urls)


def _summary_section(run: Run, evaluations: list[Evaluation]) -> Section:
    blocks: list[Block] = []
    for evaluation in evaluations:
        scores = scores_block(evaluation.split, evaluation.scores)
        blocks.append(scores)

    if "test" not in run.evaluations:
        text = (
            "There is no test split. These metrics are for valid, which also selected the best "
            "weights, so they are slightly optimistic."
        )
        blocks.append(Text(text=text, tone="warning"))

    scored = run.evaluation.scored
    if scored is not None:
        weights = "EMA" if scored.weights == "ema" else "raw"
        epoch = scored.epoch + 1
        score = f"{scored.metric} {scored.value:.4f}"
        text = f"Evaluated weights: {weights}, epoch {epoch} ({score} during training)."
        blocks.append(Text(text=text))

    if run.fit.stopped:
        blocks.append(Text(text=f"Training {run.fit.stopped}."))
    for warning in run.fit.warnings:
        blocks.append(Text(text=warning, tone="warning"))

    return Section(key="summary", title="Summary", blocks=tuple(blocks))


def _classes_section(run: Run, evaluations: list[Evaluation]) -> Section:
    train_counts = run.statistics.counts.get("train")
    tables = []
    for evaluation in evaluations:
        title = f"Classes on {evaluation.split}"
        table = classes_table(title, evaluation.scores, train_counts)
        tables.append(table)

    return Section(key="classes", title="Classes", blocks=tuple(tables))


def _mistakes_section(run: Run, evaluations: list[Evaluation], thumbnails: Thumbnails) -> Section:
    blocks: list[Block] = []
    for evaluation in evaluations:
        split = evaluation.split
        file = run.paths.predictions / f"gradcam_{split}.npz"
        overlay = _grad_cam_lookup(file, thumbnails)
        title = f"Most confident mistakes on {split}"
        gallery = mistakes_gallery(title, evaluation, thumbnails, overlay)
        matrix = confusion_matrix(f"Confusion matrix on {split}", evaluation, thumbnails)
        blocks += [gallery, matrix]

    return Section(key="mistakes", title="Mistakes", blocks=tuple(blocks))


def _grad_cam_lookup(file: Path, thumbnails: Thumbnails) -> OverlayLookup:
    if not os.path.lexists(file):
        return lambda name: None

    maps = _read_heat_maps(file)

    def find_overlay(name: str) -> int | None:
        if name not in maps:
            return None
        return thumbnails.add_heat_map(name, maps[name])

    return find_overlay


def _read_heat_maps(file: Path) -> dict[str, NDArray[np.uint8]]:
    """Return the heat maps uint8 [h, w] of a file by image name."""
    try:
        arrays = read_npz(file, max_bytes=_MAX_HEAT_MAP_BYTES)
    except DataError as error:
        raise ReportError(f"{error}; {_HEAT_MAP_ADVICE}") from error
    ids = arrays.get("ids")
    maps = arrays.get("maps")
    if ids is None or maps is None or ids.dtype.kind != "U" or maps.dtype != np.uint8:
        raise ReportError(f"{file}: expected the arrays ids and maps; {_HEAT_MAP_ADVICE}")
    if ids.ndim != 1 or maps.ndim != 3 or len(ids) != len(maps) or 0 in maps.shape:
        raise ReportError(
            f"{file}: ids has shape {ids.shape}, and maps {maps.shape}; {_HEAT_MAP_ADVICE}"
        )
    return dict(zip(ids.tolist(), maps, strict=True))


def _confidence_section(run: Run, evaluations: list[Evaluation]) -> Section:
    notes = run.labels.confidence_notes
    blocks: list[Block] = [Text(text=f"{_capitalize(note)}.", tone="warning") for note in notes]
    for evaluation in evaluations:
        split = evaluation.split
        if evaluation.calibrated_error is not None:
            calibrated = format_percent(evaluation.calibrated_error)
            uncalibrated = format_percent(evaluation.scores.calibration_error)
            text = (
                f"Expected calibration error on {split}: {calibrated} calibrated, {uncalibrated} "
                "uncalibrated. The intervals are for the true error; for few images, the "
                "measured error is biased upward."
            )
            blocks.append(Text(text=text))
        diagram = reliability_diagram(f"Reliability diagram on {split}", evaluation)
        curve = risk_coverage_chart(f"Risk-coverage curve on {split}", evaluation)
        blocks += [diagram, curve]

    return Section(key="confidence", title="Confidence", blocks=tuple(blocks))


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def _slices_section(evaluations: list[Evaluation]) -> Section:
    blocks: list[Block] = []
    for evaluation in evaluations:
        blocks += slice_tables(evaluation)

    return Section(key="slices", title="Slices", blocks=tuple(blocks))


def _robustness_section(run: Run) -> Section:
    robustness = run.robustness
    if robustness is None:
        return Section(key="robustness", title="Robustness", blocks=())

    charts = []
    original = robustness.untouched.value
    for title, curve in robustness.curves.items():
        levels = curve.levels
        top1 = curve.top1
        degraded = Series(
            name="degraded images",
            x=levels,
            y=tuple(each.value for each in top1),
            low=tuple(each.low for each in top1),
            high=tuple(each.high for each in top1),
        )
        ends = (min(levels), max(levels))
        baseline = Series(name="original images", x=ends, y=(original, original), style="dashed")
        chart = Chart(
            title=title,
            x_title=curve.unit,
            y_title="top-1",
            y_unit="share",
            series=(degraded, baseline),
        )
        charts.append(chart)

    return Section(key="robustness", title="Robustness", blocks=tuple(charts))
