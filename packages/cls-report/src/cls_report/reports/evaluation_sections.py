"""What a report says of a set of answers: figures, classes, confusions, mistakes, confidence, slices."""

from collections.abc import Callable, Sequence

import numpy as np

from cls_data import Predictions
from cls_export.contract.calibration import risk_coverage
from cls_report.page.blocks import (
    Chart,
    Column,
    Confusion,
    Estimate,
    Gallery,
    Score,
    Scores,
    Series,
    Shown,
    Table,
    Text,
)
from cls_report.page.thumbnails import Pictures
from cls_report.statistics.calibration import BINS, places
from cls_report.statistics.evaluated import Answers
from cls_report.statistics.intervals import share
from cls_report.statistics.scores import EvaluationScores
from cls_report.statistics.slices import slices

_SHOWN_MISTAKES = 24
_POINTS = 200
"""Of a curve, at most."""

Overlays = Callable[[str], int | None]
"""The place of the picture that explains an image's answer; None where there is none."""


def scores_block(title: str, scores: EvaluationScores) -> Scores:
    """Show the figures that are asked for first."""
    grouped = "" if scores.groups is None else f", {scores.groups} groups"
    return Scores(
        title=f"{title}: {scores.images} images{grouped}",
        scores=(
            Score(
                title="top-1",
                estimate=scores.top1,
                unit="share",
                note=f"{scores.right} of {scores.images} right",
            ),
            Score(
                title="macro-F1",
                estimate=scores.macro_f1,
                unit="share",
                note="every class counts the same",
            ),
            Score(title="top-5", estimate=scores.top5, unit="share"),
            Score(title="macro precision", estimate=scores.macro_precision, unit="share"),
            Score(title="macro recall", estimate=scores.macro_recall, unit="share"),
            Score(
                title="AUROC",
                estimate=scores.auroc,
                unit="share",
                note="one class against the rest, mean",
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
                note="of the softmax; bounds are of the true error",
            ),
        ),
    )


def classes_table(title: str, scores: EvaluationScores, train_counts: dict[str, int]) -> Table:
    """Show every class, with how many images it has."""
    found = scores.by_class
    columns = [
        Column(title="class", kind="text", values=tuple(shown_name(each.name) for each in found)),
        Column(title="images", kind="count", values=tuple(each.support for each in found)),
        Column(title="recall", kind="share_estimate", values=tuple(each.recall for each in found)),
        Column(
            title="precision", kind="share_estimate", values=tuple(each.precision for each in found)
        ),
        Column(title="F1", kind="share_estimate", values=tuple(each.f1 for each in found)),
        Column(title="answered", kind="count", values=tuple(each.answered for each in found)),
        Column(
            title="in train",
            kind="count",
            values=tuple(train_counts.get(each.name) for each in found),
        ),
    ]
    return Table(
        title=title,
        columns=tuple(column for column in columns if column.title != "in train" or train_counts),
        note="Recall: of the class's images, the share answered rightly. Precision: of its answers, the share that is "
        "right. Intervals are Wilson's, of 95 %.",
    )


def confusion_block(
    title: str, predictions: Predictions, answers: Answers, pictures: Pictures
) -> Confusion:
    """Show who is taken for whom; mistakes have the first claim on the room for pictures."""
    order = np.argsort(answers.right, kind="stable")
    found = np.full(len(order), -1)
    for row in order:
        found[row] = pictures.place(str(predictions.ids[row]))
    missing = int((found < 0).sum())
    return Confusion(
        title=title,
        classes=tuple(map(shown_name, answers.classes)),
        truth=tuple(answers.truth.tolist()),
        answer=tuple(answers.answer.tolist()),
        confidence=tuple(np.round(answers.confidence * 1000).astype(int).tolist()),
        names=tuple(map(str, predictions.ids)),
        pictures=tuple(found.tolist()),
        note=f"{missing} of {len(order)} images have no picture here, to keep the file small."
        if missing
        else "",
    )


def mistakes_gallery(
    title: str, predictions: Predictions, answers: Answers, pictures: Pictures, overlays: Overlays
) -> Gallery | Text:
    """Show the mistakes that the network is surest of: label errors and blind spots come first here."""
    wrong = np.flatnonzero(~answers.right)
    rows = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:_SHOWN_MISTAKES]
    shown = []
    for row in rows:
        image = str(predictions.ids[row])
        place = pictures.place(image)
        if place >= 0:
            lines = (
                f"is {_class(answers, answers.truth[row])}",
                f"{answers.confidence[row]:.1%} sure",
                image,
            )
            shown.append(
                Shown(
                    picture=place,
                    overlay=overlays(image),
                    title=_class(answers, answers.answer[row]),
                    lines=lines,
                    wrong=True,
                )
            )
    if not len(wrong):
        return Text(text=f"{title}: none, every answer is right.")
    if not shown:
        return Text(
            text=f"{title}: the image files are not where the run found them.", tone="faint"
        )
    explained = any(each.overlay is not None for each in shown)
    note = "The map shows which places spoke for the answer (Grad-CAM, Selvaraju et al., arXiv:1610.02391)."
    return Gallery(
        title=f"{title}, {len(shown)} of {len(wrong)}",
        shown=tuple(shown),
        note=note if explained else "",
    )


def reliability_chart(title: str, parts: dict[str, Answers]) -> Chart:
    """Show how often answers are right against how sure they are; on the diagonal, confidence means what it says."""
    series = [Series(name="as sure as right", x=(0.0, 1.0), y=(0.0, 1.0), style="dashed")]
    for name, answers in parts.items():
        confidence, right = answers.confidence, answers.right
        of = places(confidence)
        used = [index for index in range(BINS) if (of == index).any()]
        found = [share(right[of == index], answers.clusters.take(of == index)) for index in used]
        series.append(
            Series(
                name=name,
                x=tuple(float(confidence[of == index].mean()) for index in used),
                y=tuple(each.value for each in found),
                low=tuple(each.low for each in found),
                high=tuple(each.high for each in found),
                style="points",
            )
        )
    return Chart(
        title=title,
        x_title="confidence",
        y_title="share right",
        x_unit="share",
        y_unit="share",
        series=tuple(series),
    )


def risk_coverage_chart(title: str, parts: dict[str, Answers]) -> Chart:
    """Show how many answers are wrong if only the surest ones count."""
    series = []
    for name, answers in parts.items():
        curve = risk_coverage(answers.confidence, answers.right)
        chosen = np.unique(np.linspace(0, len(curve.coverage) - 1, _POINTS).round().astype(int))
        series.append(
            Series(
                name=name,
                x=tuple(curve.coverage[chosen].tolist()),
                y=tuple(curve.risk[chosen].tolist()),
            )
        )
    return Chart(
        title=title,
        x_title="share of images that is answered",
        y_title="share of answers that is wrong",
        x_unit="share",
        y_unit="share",
        series=tuple(series),
    )


def slice_tables(title: str, predictions: Predictions, answers: Answers) -> list[Table]:
    """Show the figures of parts of the images: by size, by what the rows say of them."""
    by_key: dict[str, list[tuple[str, int, Estimate, float]]] = {}
    for each in slices(predictions):
        own = answers.take(each.rows)
        row = (
            each.value,
            int(each.rows.sum()),
            share(own.right, own.clusters),
            float(own.confidence.mean()),
        )
        by_key.setdefault(each.key, []).append(row)
    return [_slice_table(f"{title}, by {key}", key, rows) for key, rows in by_key.items()]


def _slice_table(title: str, key: str, rows: Sequence[tuple[str, int, Estimate, float]]) -> Table:
    return Table(
        title=title,
        columns=(
            Column(title=key, kind="text", values=tuple(row[0] for row in rows)),
            Column(title="images", kind="count", values=tuple(row[1] for row in rows)),
            Column(title="top-1", kind="share_estimate", values=tuple(row[2] for row in rows)),
            Column(title="mean confidence", kind="share", values=tuple(row[3] for row in rows)),
        ),
    )


def shown_name(name: str) -> str:
    """Return a class's name so that one can see it."""
    return name or "(empty)"


def _class(answers: Answers, index: int) -> str:
    return shown_name(answers.classes[int(index)])
