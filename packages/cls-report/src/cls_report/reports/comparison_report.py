"""The report that compares two runs."""

from collections.abc import Sequence

import numpy as np

from cls_report.page.blocks import (
    Block,
    Chart,
    Gallery,
    GalleryItem,
    Header,
    Report,
    Row,
    Section,
    Table,
    Text,
)
from cls_report.page.thumbnails import Thumbnails
from cls_report.reports.evaluation_blocks import class_name, display_name, displayable_images
from cls_report.reports.run_sections import metric_series
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
    first_name = first.name
    second_name = second.name
    names = (first_name, second_name)
    split = paired.first.split
    images = comparison.overall.images
    thumbnails = Thumbnails(second.data_root, second.labels.preprocessing)
    summary = (
        Text(text=comparison.verdict, tone="verdict"),
        _metrics_table(comparison, names, split),
        _agreement_table(comparison, paired, names),
    )
    galleries = (
        _gallery(second_name, paired.second, first_name, paired.first, thumbnails),
        _gallery(first_name, paired.first, second_name, paired.second, thumbnails),
    )
    classes = _difference_table("By class", "class", comparison.by_class, names)
    slices = []
    for key, differences in comparison.by_slice.items():
        table = _difference_table(f"By {key}", key, differences, names)
        slices.append(table)

    training = _training_charts(first, second)
    settings = _settings_block(first, second)
    sections = (
        Section(key="summary", title="Summary", blocks=summary),
        Section(key="images", title="Disagreements", blocks=galleries),
        Section(key="classes", title="Classes", blocks=(classes,)),
        Section(key="slices", title="Slices", blocks=tuple(slices)),
        Section(key="training", title="Training", blocks=training),
        Section(key="settings", title="Settings", blocks=(settings,)),
    )
    title = " and ".join(names)
    subtitle = f"compared on the same {images} images of {split}"
    return Report.from_sections(title, subtitle, sections, thumbnails.urls)


def _metrics_table(comparison: Comparison, names: tuple[str, str], split: str) -> Table:
    overall = comparison.overall
    f1 = comparison.macro_f1
    loss = comparison.loss
    top1_difference = format_points(overall.difference)
    f1_difference = format_points(f1.difference)
    loss_difference = _format_difference(loss.difference)
    rows = (
        ("top-1", format_percent(overall.first), format_percent(overall.second), top1_difference),
        ("macro-F1", f"{f1.first:.1%}", f"{f1.second:.1%}", f1_difference),
        ("loss, nats", f"{loss.first:.3f}", f"{loss.second:.3f}", loss_difference),
    )
    titles = ("metric", *names, "difference (95% interval)")
    headers: list[Header] = [(title, "text") for title in titles]
    note = (
        f"p = {overall.p:.3g} for the difference in top-1. The test uses only the images "
        "that exactly one run predicts correctly."
    )
    return Table.from_rows(f"All {overall.images} images of {split}", headers, rows, note)


def _format_difference(difference: Estimate) -> str:
    if difference.value is None:
        return "-"
    text = f"{difference.value:+.3f}"
    low = difference.low
    high = difference.high
    if low is None or high is None:
        return text

    return f"{text} ({low:+.3f} to {high:+.3f})"


def _agreement_table(
    comparison: Comparison, paired: PairedEvaluations, names: tuple[str, str]
) -> Table:
    overall = comparison.overall
    first_name, second_name = names
    first_correct = paired.first.softmax.correct
    second_correct = paired.second.softmax.correct
    both_correct = first_correct & second_correct
    both = int(both_correct.sum())
    neither = overall.images - both - overall.only_first - overall.only_second
    headers: list[Header] = [("correct in", "text"), ("images", "count")]
    rows = (
        ("both", both),
        (f"only {first_name}", overall.only_first),
        (f"only {second_name}", overall.only_second),
        ("neither", neither),
    )
    return Table.from_rows("Correct predictions", headers, rows)


def _gallery(
    right_name: str, right: Evaluation, wrong_name: str, wrong: Evaluation, thumbnails: Thumbnails
) -> Block:
    """Return the images that only one run predicts correctly."""
    correct = right.softmax
    mistaken = wrong.softmax
    rows = np.flatnonzero(correct.correct & ~mistaken.correct)
    order = np.argsort(-mistaken.confidence[rows], kind="stable")
    rows = rows[order]
    title = f"Only {right_name} is correct"
    items = []

    for row, name, image in displayable_images(right, rows[:_MAX_ITEMS], thumbnails):
        label = class_name(correct, correct.labels[row])
        predicted = class_name(mistaken, mistaken.predicted[row])
        item = GalleryItem(
            image=image,
            title=f"label {label}",
            lines=(
                f"{right_name}: correct, confidence {correct.confidence[row]:.0%}",
                f"{wrong_name}: predicted {predicted}, confidence {mistaken.confidence[row]:.0%}",
                name,
            ),
        )
        items.append(item)

    if items:
        return Gallery(title=f"{title}: {len(items)} of {len(rows)} images", items=tuple(items))
    if len(rows) > 0:
        return Text(text=f"{title}: {len(rows)} images, but their files were not found.")
    return Text(text=f"{title}: no images.")


def _difference_table(
    title: str, key: str, differences: Sequence[AccuracyDifference], names: tuple[str, str]
) -> Table:
    headers: list[Header] = [
        (key, "text"),
        ("images", "count"),
        (f"{names[0]} accuracy", "share_estimate"),
        (f"{names[1]} accuracy", "share_estimate"),
        ("difference", "share_estimate"),
        ("adjusted p", "number"),
    ]
    rows: list[Row] = []
    for each in differences:
        row = (
            display_name(each.name),
            each.images,
            each.first,
            each.second,
            each.difference,
            each.adjusted_p,
        )
        rows.append(row)

    note = "p is adjusted for the number of rows (Holm)."
    return Table.from_rows(title, headers, rows, note)


def _training_charts(first: Run, second: Run) -> tuple[Chart, ...]:
    charts = []
    for metric in _CURVES:
        lines = (
            metric_series(first, metric, first.name),
            metric_series(second, metric, second.name),
        )
        series = [line for line in lines if line.x]
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
        return Text(text="The settings are the same, apart from the seed and the name of the run.")

    headers: list[Header] = [
        ("setting", "text"),
        (first.name, "text"),
        (second.name, "text"),
    ]
    rows = [(key, *values) for key, values in differing.items()]
    return Table.from_rows("Different settings", headers, rows)
