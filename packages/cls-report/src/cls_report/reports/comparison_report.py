"""The report that compares two runs."""

from collections.abc import Sequence

import numpy as np

from cls_report.page.blocks import (
    Block,
    CellValue,
    Chart,
    Gallery,
    GalleryItem,
    Report,
    Section,
    Series,
    Table,
    Text,
)
from cls_report.page.thumbnails import Thumbnails
from cls_report.reports.evaluation_blocks import class_name, display_name
from cls_report.run_folder import Run, differing_settings
from cls_report.statistics.comparison import AccuracyDifference, Comparison, PairedEvaluations
from cls_report.statistics.estimates import Estimate, format_percent, format_points
from cls_report.statistics.evaluation import Evaluation

_MAX_ITEMS = 24
_CURVES = ("valid_top1", "valid_macro_f1", "valid_loss", "train_loss")


def build_comparison_report(
    first: Run, second: Run, paired: PairedEvaluations, comparison: Comparison
) -> Report:
    """Build the report of two runs whose predictions for one split were paired and compared."""
    names = (first.name, second.name)
    split = paired.first.split
    thumbnails = Thumbnails(second.data_root, second.labels.preprocessing)
    slice_tables = []

    for key, differences in comparison.by_slice.items():
        slice_tables.append(_difference_table(f"By {key}", key, differences, names))

    sections = [
        Section(
            key="summary",
            title="Summary",
            blocks=(
                Text(text=comparison.verdict, tone="verdict"),
                _metrics_table(comparison, names, split),
                _agreement_table(comparison, paired, names),
            ),
        ),
        Section(
            key="images",
            title="Disagreements",
            blocks=(
                _gallery(names[1], paired.second, names[0], paired.first, thumbnails),
                _gallery(names[0], paired.first, names[1], paired.second, thumbnails),
            ),
        ),
        Section(
            key="classes",
            title="Classes",
            blocks=(_difference_table("Classes", "class", comparison.by_class, names),),
        ),
        Section(key="slices", title="Slices", blocks=tuple(slice_tables)),
        Section(key="training", title="Training", blocks=_training_charts(first, second)),
        Section(key="settings", title="Settings", blocks=(_settings_block(first, second),)),
    ]
    return Report(
        title=f"{names[0]} and {names[1]}",
        subtitle=f"compared on the same {len(paired.first.predictions)} images of {split}",
        sections=tuple(section for section in sections if section.blocks),
        images=tuple(thumbnails.urls),
    )


def _metrics_table(comparison: Comparison, names: tuple[str, str], split: str) -> Table:
    overall, f1, loss = comparison.overall, comparison.macro_f1, comparison.loss
    rows = (
        (
            "top-1",
            format_percent(overall.first),
            format_percent(overall.second),
            format_points(overall.difference),
        ),
        ("macro-F1", f"{f1.first:.1%}", f"{f1.second:.1%}", format_points(f1.difference)),
        (
            "loss, nats",
            f"{loss.first:.3f}",
            f"{loss.second:.3f}",
            _format_difference(loss.difference),
        ),
    )

    return Table.from_rows(
        f"All {overall.images} images of {split}",
        [
            ("metric", "text"),
            (names[0], "text"),
            (names[1], "text"),
            ("difference (95% interval)", "text"),
        ],
        rows,
        note=f"p = {overall.p:.3g} for top-1. The test uses only images that exactly one run "
        "predicts correctly.",
    )


def _format_difference(difference: Estimate) -> str:
    if difference.value is None:
        return "-"
    text = f"{difference.value:+.3f}"
    if difference.low is not None and difference.high is not None:
        text += f" ({difference.low:+.3f} to {difference.high:+.3f})"
    return text


def _agreement_table(
    comparison: Comparison, paired: PairedEvaluations, names: tuple[str, str]
) -> Table:
    overall = comparison.overall
    both = int((paired.first.softmax.correct & paired.second.softmax.correct).sum())
    neither = overall.images - both - overall.only_first - overall.only_second
    rows = (
        ("both", both),
        (f"only {names[0]}", overall.only_first),
        (f"only {names[1]}", overall.only_second),
        ("neither", neither),
    )
    return Table.from_rows(
        "Correct predictions", [("correct in", "text"), ("images", "count")], rows
    )


def _gallery(
    right_name: str, right: Evaluation, wrong_name: str, wrong: Evaluation, thumbnails: Thumbnails
) -> Block:
    """Show the images that one run predicts correctly and the other does not."""
    rows = np.flatnonzero(right.softmax.correct & ~wrong.softmax.correct)
    rows = rows[np.argsort(-wrong.softmax.confidence[rows], kind="stable")]
    title = f"Only {right_name} is correct"
    items = []

    for row in rows[:_MAX_ITEMS]:
        name = str(right.predictions.ids[row])
        image = thumbnails.add(name)
        if image < 0:
            continue
        prediction = class_name(wrong.softmax, wrong.softmax.predicted[row])
        item = GalleryItem(
            image=image,
            title=f"label {class_name(right.softmax, right.softmax.labels[row])}",
            lines=(
                f"{right_name}: confidence {right.softmax.confidence[row]:.0%}",
                f"{wrong_name}: {prediction}, confidence {wrong.softmax.confidence[row]:.0%}",
                name,
            ),
        )
        items.append(item)

    if items:
        return Gallery(title=f"{title}, {len(items)} of {len(rows)}", items=tuple(items))
    if len(rows) > 0:
        return Text(text=f"{title}: {len(rows)} images, but their files were not found.")
    return Text(text=f"{title}: no images.")


def _difference_table(
    title: str, key: str, differences: Sequence[AccuracyDifference], names: tuple[str, str]
) -> Table:
    rows: list[tuple[CellValue, ...]] = []
    for each in differences:
        name = display_name(each.name)
        rows.append((name, each.images, each.first, each.second, each.difference, each.adjusted_p))

    return Table.from_rows(
        title,
        [
            (key, "text"),
            ("images", "count"),
            (f"{names[0]}, correct", "share_estimate"),
            (f"{names[1]}, correct", "share_estimate"),
            ("difference", "share_estimate"),
            ("p, adjusted", "number"),
        ],
        rows,
        note="p is adjusted for the number of rows (Holm).",
    )


def _training_charts(first: Run, second: Run) -> tuple[Chart, ...]:
    charts = []
    for metric in _CURVES:
        series = []
        for run in (first, second):
            epochs, values = run.metric_history(metric)
            if epochs:
                series.append(Series(name=run.name, x=epochs, y=values))
        if series:
            chart = Chart(
                title=metric,
                x_title="epoch",
                y_title=metric,
                x_unit="count",
                y_unit="number" if metric.endswith("loss") else "share",
                series=tuple(series),
            )
            charts.append(chart)

    return tuple(charts)


def _settings_block(first: Run, second: Run) -> Block:
    differing = differing_settings(first, second)
    if not differing:
        return Text(text="The two configurations differ in nothing but the seed and the name.")
    rows = [(key, *values) for key, values in differing.items()]

    return Table.from_rows(
        "Different settings",
        [("setting", "text"), (first.name, "text"), (second.name, "text")],
        rows,
    )
