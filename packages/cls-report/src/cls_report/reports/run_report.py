"""The report of one run."""

from pathlib import Path

import numpy as np

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
from cls_report.run_folder import Run, read_json
from cls_report.statistics.estimates import format_percent
from cls_report.statistics.evaluation import Evaluation


def build_run_report(run: Run) -> Report:
    """Build the report of an evaluated run."""
    thumbnails = Thumbnails(run.data_root, run.labels.preprocessing)
    # The test split, if there is one, is first, also in the use of the thumbnail budget.
    evaluations = list(reversed(run.evaluations.values()))
    sections = [
        _summary_section(run, evaluations),
        _classes_section(run, evaluations),
        _mistakes_section(run, evaluations, thumbnails),
        _confidence_section(evaluations),
        _slices_section(evaluations),
        _robustness_section(run),
        training_section(run),
        data_section(run),
        cost_section(run),
        reproduction_section(run),
    ]

    settings = run.config["model"]
    model = settings.get("name") or settings.get("_target_", "")
    classes = len(run.labels.classes)
    seed = run.config.get("seed")
    subtitle = f"{model}, {classes} classes, seed {seed}"
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

    scored = read_json(run.paths.evaluation).get("scored")
    if scored:
        weights = "EMA" if scored["weights"] == "ema" else "raw"
        epoch = scored["epoch"] + 1
        score = f"{scored['metric']} {scored['value']:.4f}"
        text = f"Evaluated weights: {weights}, epoch {epoch} ({score} during training)."
        blocks.append(Text(text=text))

    summary = read_json(run.paths.summary)
    for warning in summary.get("warnings", []):
        blocks.append(Text(text=warning, tone="warning"))

    return Section(key="summary", title="Summary", blocks=tuple(blocks))


def _classes_section(run: Run, evaluations: list[Evaluation]) -> Section:
    train_counts = run.class_counts.get("train")
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
    if not file.is_file():
        return lambda name: None

    with np.load(file, allow_pickle=False) as stored:
        maps = dict(zip(map(str, stored["ids"]), stored["maps"], strict=True))

    def find_overlay(name: str) -> int | None:
        if name not in maps:
            return None
        return thumbnails.add_heat_map(name, maps[name])

    return find_overlay


def _confidence_section(evaluations: list[Evaluation]) -> Section:
    blocks: list[Block] = []
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


def _slices_section(evaluations: list[Evaluation]) -> Section:
    blocks: list[Block] = []
    for evaluation in evaluations:
        blocks += slice_tables(evaluation)

    return Section(key="slices", title="Slices", blocks=tuple(blocks))


def _robustness_section(run: Run) -> Section:
    robustness = read_json(run.paths.robustness)
    charts = []
    for title, curve in robustness.get("curves", {}).items():
        levels = tuple(curve["levels"])
        top1 = curve["top1"]
        degraded = Series(
            name="degraded images",
            x=levels,
            y=tuple(each["value"] for each in top1),
            low=tuple(each["low"] for each in top1),
            high=tuple(each["high"] for each in top1),
        )
        ends = (min(levels), max(levels))
        original = robustness["untouched"]["value"]
        baseline = Series(name="original images", x=ends, y=(original, original), style="dashed")
        chart = Chart(
            title=title,
            x_title=curve["unit"],
            y_title="top-1",
            y_unit="share",
            series=(degraded, baseline),
        )
        charts.append(chart)

    return Section(key="robustness", title="Robustness", blocks=tuple(charts))
