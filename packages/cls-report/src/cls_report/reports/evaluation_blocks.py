"""Blocks of an evaluation: scores, classes, confusion matrix, mistakes, confidence, and slices."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from cls_report.page.blocks import (
    CellValue,
    Chart,
    ConfusionMatrix,
    Gallery,
    GalleryItem,
    Header,
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
from cls_report.statistics.intervals import Integers, proportion_interval
from cls_report.statistics.rejection import risk_coverage
from cls_report.statistics.scores import EvaluationScores

_MAX_MISTAKES = 24
_MAX_CURVE_POINTS = 200
_MAX_NAME = 200
"""Characters of a class name."""

OverlayLookup = Callable[[str], int | None]
"""Returns the index of the image that explains a prediction, or None."""


def scores_block(title: str, scores: EvaluationScores) -> Scores:
    """Return the main metrics."""
    groups = "" if scores.groups is None else f", {scores.groups} groups"
    correct = f"{scores.right} of {scores.images} correct"
    loss_note = "negative log-likelihood, nats"
    ece_note = "of the softmax; the interval is for the true error"
    return Scores(
        title=f"{title}: {scores.images} images{groups}",
        scores=(
            Score(title="top-1", estimate=scores.top1, note=correct),
            Score(title="macro-F1", estimate=scores.macro_f1, note="mean over classes"),
            Score(title="top-5", estimate=scores.top5),
            Score(title="macro precision", estimate=scores.macro_precision),
            Score(title="macro recall", estimate=scores.macro_recall),
            Score(title="AUROC", estimate=scores.auroc, note="one-vs-rest, mean over classes"),
            Score(title="loss", estimate=scores.loss, unit="number", note=loss_note),
            Score(title="calibration error", estimate=scores.calibration_error, note=ece_note),
        ),
    )


def classes_table(
    title: str, scores: EvaluationScores, train_counts: Mapping[str, int] | None = None
) -> Table:
    """Return the metrics of each class, optionally with its number of training images."""
    headers: list[Header] = [
        ("class", "text"),
        ("images", "count"),
        ("recall", "share_estimate"),
        ("precision", "share_estimate"),
        ("F1", "share_estimate"),
        ("predictions", "count"),
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
    evaluated = evaluation.softmax
    ids = evaluation.predictions.ids
    images = [-1] * len(evaluated)
    for row in np.argsort(evaluated.correct, kind="stable"):
        images[row] = thumbnails.add(str(ids[row]))

    missing = images.count(-1)
    note = ""
    if missing:
        note = (
            f"{missing} of {len(images)} images are not included, because their files cannot be "
            "read or the page would become too large."
        )

    thousandths = np.round(evaluated.confidence * 1000)
    return ConfusionMatrix(
        title=title,
        classes=tuple(map(display_name, evaluated.classes)),
        labels=tuple(evaluated.labels.tolist()),
        predicted=tuple(evaluated.predicted.tolist()),
        confidence=tuple(thousandths.astype(int).tolist()),
        names=tuple(map(str, ids)),
        images=tuple(images),
        note=note,
    )


def mistakes_gallery(
    title: str, evaluation: Evaluation, thumbnails: Thumbnails, overlay: OverlayLookup
) -> Gallery | Text:
    """Return the most confident mistakes, which are often label errors or blind spots."""
    evaluated = evaluation.softmax
    is_wrong = ~evaluated.correct
    wrong = np.flatnonzero(is_wrong)
    if len(wrong) == 0:
        return Text(text=f"{title}: none, all predictions are correct.")

    order = np.argsort(-evaluated.confidence[wrong], kind="stable")
    rows = wrong[order][:_MAX_MISTAKES]
    items = []
    note = ""
    for row, name, image in displayable_images(evaluation, rows, thumbnails):
        label = class_name(evaluated, evaluated.labels[row])
        predicted = class_name(evaluated, evaluated.predicted[row])
        confidence = evaluated.confidence[row]
        item = GalleryItem(
            image=image,
            overlay=overlay(name),
            title=f"predicted {predicted}",
            lines=(f"label {label}", f"confidence {confidence:.1%}", name),
            is_wrong=True,
        )
        items.append(item)
        if item.overlay is not None:
            note = (
                "Right image of each pair: Grad-CAM of the predicted class (Selvaraju et al., "
                "arXiv:1610.02391)."
            )

    if not items:
        return Text(text=f"{title}: the image files were not found.", tone="muted")
    return Gallery(title=f"{title}: {len(items)} of {len(wrong)}", items=tuple(items), note=note)


def displayable_images(
    evaluation: Evaluation, rows: Integers, thumbnails: Thumbnails
) -> Iterator[tuple[int, str, int]]:
    """Yield the row, the name, and the thumbnail's index of each image that has a thumbnail."""
    for row in rows.tolist():
        name = str(evaluation.predictions.ids[row])
        image = thumbnails.add(name)
        if image >= 0:
            yield row, name, image


def reliability_diagram(title: str, evaluation: Evaluation) -> Chart:
    """Return accuracy over confidence. On the diagonal, the confidence is calibrated."""
    diagonal = (0.0, 1.0)
    series = [Series(name="perfect calibration", x=diagonal, y=diagonal, style="dashed")]
    for name, evaluated in evaluation.by_confidence.items():
        series.append(_reliability_series(name, evaluated))
    return _share_chart(title, "confidence", "accuracy", series)


def _reliability_series(name: str, evaluated: EvaluatedPredictions) -> Series:
    bins = confidence_bins(evaluated.confidence)
    confidence = []
    accuracy = []
    for index in range(BINS):
        rows = np.asarray(bins == index)
        if rows.any():
            subset = evaluated.subset(rows)
            confidence.append(float(subset.confidence.mean()))
            accuracy.append(proportion_interval(subset.correct, subset.clusters))

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
        last = len(curve.coverage) - 1
        points = np.linspace(0, last, _MAX_CURVE_POINTS)
        nearest = points.round().astype(int)
        rows = np.unique(nearest)

        line = Series(
            name=name,
            x=tuple(curve.coverage[rows].tolist()),
            y=tuple(curve.risk[rows].tolist()),
        )
        series.append(line)

    x_title = "coverage: share of predictions accepted"
    y_title = "risk: error rate of accepted predictions"
    return _share_chart(title, x_title, y_title, series)


def _share_chart(title: str, x_title: str, y_title: str, series: list[Series]) -> Chart:
    return Chart(
        title=title,
        x_title=x_title,
        y_title=y_title,
        x_unit="share",
        y_unit="share",
        series=tuple(series),
    )


def slice_tables(evaluation: Evaluation) -> list[Table]:
    """Return accuracy and confidence by image size and by metadata."""
    tables = []
    for key, slices in evaluation.slices.items():
        headers: list[Header] = [
            (key, "text"),
            ("images", "count"),
            ("top-1", "share_estimate"),
            ("mean confidence", "share"),
        ]
        rows = []
        for each in slices:
            subset = evaluation.softmax.subset(each.rows)
            images = len(subset)
            top1 = proportion_interval(subset.correct, subset.clusters)
            confidence = float(subset.confidence.mean())
            rows.append((each.value, images, top1, confidence))

        title = f"Top-1 by {key}, {evaluation.split}"
        table = Table.from_rows(title, headers, rows)
        tables.append(table)

    return tables


def display_name(name: str) -> str:
    """Return a visible name for a class, without the middle of a very long one."""
    if len(name) > _MAX_NAME:
        half = _MAX_NAME // 2
        return f"{name[:half]}…{name[-half:]}"
    return name or "(empty)"


def class_name(evaluated: EvaluatedPredictions, index: int) -> str:
    """Return the visible name of the class with an index."""
    return display_name(evaluated.classes[index])
