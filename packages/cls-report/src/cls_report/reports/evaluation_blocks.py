"""Blocks of an evaluation: scores, classes, confusion matrix, mistakes, confidence, and slices."""

from collections.abc import Callable, Mapping

import numpy as np

from cls_report.page.blocks import (
    CellValue,
    Chart,
    ColumnKind,
    ConfusionMatrix,
    Gallery,
    GalleryItem,
    Score,
    Scores,
    Series,
    Table,
    Text,
)
from cls_report.page.thumbnails import Thumbnails
from cls_report.statistics.calibration import BINS, confidence_bins
from cls_report.statistics.evaluated_predictions import EvaluatedPredictions
from cls_report.statistics.evaluation import Evaluation
from cls_report.statistics.intervals import proportion_interval
from cls_report.statistics.rejection import risk_coverage
from cls_report.statistics.scores import EvaluationScores

_MAX_MISTAKES = 24
_MAX_CURVE_POINTS = 200

OverlayLookup = Callable[[str], int | None]
"""Returns the index of the image that explains a prediction, or None."""


def scores_block(title: str, scores: EvaluationScores) -> Scores:
    """Return the main metrics."""
    groups = "" if scores.groups is None else f", {scores.groups} groups"
    return Scores(
        title=f"{title}: {scores.images} images{groups}",
        scores=(
            Score(
                title="top-1",
                estimate=scores.top1,
                unit="share",
                note=f"{scores.right} of {scores.images} correct",
            ),
            Score(
                title="macro-F1", estimate=scores.macro_f1, unit="share", note="mean over classes"
            ),
            Score(title="top-5", estimate=scores.top5, unit="share"),
            Score(title="macro precision", estimate=scores.macro_precision, unit="share"),
            Score(title="macro recall", estimate=scores.macro_recall, unit="share"),
            Score(
                title="AUROC",
                estimate=scores.auroc,
                unit="share",
                note="one-vs-rest, mean over classes",
            ),
            Score(
                title="loss",
                estimate=scores.loss,
                unit="number",
                note="negative log-likelihood, nats",
            ),
            Score(
                title="calibration error",
                estimate=scores.calibration_error,
                unit="share",
                note="of the softmax; the interval is for the true error",
            ),
        ),
    )


def classes_table(
    title: str, scores: EvaluationScores, train_counts: Mapping[str, int] | None = None
) -> Table:
    """Return the metrics of each class, with its number of training images if known."""
    headers: list[tuple[str, ColumnKind]] = [
        ("class", "text"),
        ("images", "count"),
        ("recall", "share_estimate"),
        ("precision", "share_estimate"),
        ("F1", "share_estimate"),
        ("predicted", "count"),
    ]
    rows: list[list[CellValue]] = []
    for each in scores.by_class:
        name = display_name(each.name)
        rows.append([name, each.support, each.recall, each.precision, each.f1, each.answered])

    if train_counts:
        headers.append(("in train", "count"))
        for row, each in zip(rows, scores.by_class, strict=True):
            row.append(train_counts.get(each.name))

    note = (
        "Recall: share of the class's images that are predicted correctly. Precision: share of its "
        "predictions that are correct. Intervals: Wilson, 95%."
    )
    return Table.from_rows(title, headers, rows, note)


def confusion_matrix(title: str, evaluation: Evaluation, thumbnails: Thumbnails) -> ConfusionMatrix:
    """Return the confusion matrix. Thumbnails of mistakes are added first."""
    evaluated, ids = evaluation.softmax, evaluation.predictions.ids
    images = np.full(len(evaluated), -1)
    for row in np.argsort(evaluated.correct, kind="stable"):
        images[row] = thumbnails.add(str(ids[row]))

    missing = int((images < 0).sum())
    note = ""
    if missing:
        note = f"{missing} of {len(images)} images are not included, to limit the size of the page."

    return ConfusionMatrix(
        title=title,
        classes=tuple(map(display_name, evaluated.classes)),
        labels=tuple(evaluated.labels.tolist()),
        predicted=tuple(evaluated.predicted.tolist()),
        confidence=tuple(np.round(evaluated.confidence * 1000).astype(int).tolist()),
        names=tuple(map(str, ids)),
        images=tuple(images.tolist()),
        note=note,
    )


def mistakes_gallery(
    title: str, evaluation: Evaluation, thumbnails: Thumbnails, overlay: OverlayLookup
) -> Gallery | Text:
    """Return the most confident mistakes, which are often label errors or blind spots."""
    evaluated = evaluation.softmax
    wrong = np.flatnonzero(~evaluated.correct)
    if len(wrong) == 0:
        return Text(text=f"{title}: none, all predictions are correct.")

    by_confidence = wrong[np.argsort(-evaluated.confidence[wrong], kind="stable")]
    items = []
    for row in by_confidence[:_MAX_MISTAKES]:
        name = str(evaluation.predictions.ids[row])
        image = thumbnails.add(name)
        if image < 0:
            continue
        item = GalleryItem(
            image=image,
            overlay=overlay(name),
            title=f"predicted {class_name(evaluated, evaluated.predicted[row])}",
            lines=(
                f"label {class_name(evaluated, evaluated.labels[row])}",
                f"confidence {evaluated.confidence[row]:.1%}",
                name,
            ),
            is_wrong=True,
        )
        items.append(item)

    if not items:
        return Text(text=f"{title}: the image files were not found.", tone="muted")

    has_overlay = any(item.overlay is not None for item in items)
    note = "With Grad-CAM of the predicted class (Selvaraju et al., arXiv:1610.02391)."

    return Gallery(
        title=f"{title}, {len(items)} of {len(wrong)}",
        items=tuple(items),
        note=note if has_overlay else "",
    )


def reliability_diagram(title: str, evaluation: Evaluation) -> Chart:
    """Return accuracy over confidence. On the diagonal, the confidence is calibrated."""
    diagonal = (0.0, 1.0)
    series = [Series(name="perfect calibration", x=diagonal, y=diagonal, style="dashed")]
    for name, evaluated in evaluation.by_confidence.items():
        series.append(_reliability_series(name, evaluated))

    return Chart(
        title=title,
        x_title="confidence",
        y_title="accuracy",
        x_unit="share",
        y_unit="share",
        series=tuple(series),
    )


def _reliability_series(name: str, evaluated: EvaluatedPredictions) -> Series:
    bins = confidence_bins(evaluated.confidence)
    confidence = []
    accuracy = []
    for index in range(BINS):
        rows = np.asarray(bins == index)
        if rows.any():
            confidence.append(float(evaluated.confidence[rows].mean()))
            clusters = evaluated.clusters.subset(rows)
            accuracy.append(proportion_interval(evaluated.correct[rows], clusters))

    return Series(
        name=name,
        x=tuple(confidence),
        y=tuple(each.value for each in accuracy),
        low=tuple(each.low for each in accuracy),
        high=tuple(each.high for each in accuracy),
        style="points",
    )


def risk_coverage_chart(title: str, evaluation: Evaluation) -> Chart:
    """Return the error rate over the share of predictions that are accepted."""
    series = []
    for name, evaluated in evaluation.by_confidence.items():
        curve = risk_coverage(evaluated.confidence, evaluated.correct)
        points = np.linspace(0, len(curve.coverage) - 1, _MAX_CURVE_POINTS)
        rows = np.unique(points.round().astype(int))
        coverage = tuple(curve.coverage[rows].tolist())
        risk = tuple(curve.risk[rows].tolist())
        series.append(Series(name=name, x=coverage, y=risk))

    return Chart(
        title=title,
        x_title="coverage: share of predictions accepted",
        y_title="risk: error rate of accepted predictions",
        x_unit="share",
        y_unit="share",
        series=tuple(series),
    )


def slice_tables(evaluation: Evaluation) -> list[Table]:
    """Return accuracy and confidence by image size and by metadata."""
    tables = []
    for key, slices in evaluation.slices.items():
        rows = []
        for each in slices:
            subset = evaluation.softmax.subset(each.rows)
            top1 = proportion_interval(subset.correct, subset.clusters)
            confidence = float(subset.confidence.mean())
            rows.append((each.value, len(subset), top1, confidence))
        table = Table.from_rows(
            f"{evaluation.split}, by {key}",
            [
                (key, "text"),
                ("images", "count"),
                ("top-1", "share_estimate"),
                ("mean confidence", "share"),
            ],
            rows,
        )
        tables.append(table)

    return tables


def display_name(name: str) -> str:
    """Return a visible name for a class."""
    return name or "(empty)"


def class_name(evaluated: EvaluatedPredictions, index: int) -> str:
    """Return the visible name of the class with an index."""
    name = evaluated.classes[int(index)]
    return display_name(name)
