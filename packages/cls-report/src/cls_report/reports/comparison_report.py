"""The report of two runs beside each other."""

from collections.abc import Iterator, Sequence

import numpy as np

from cls_report.page.blocks import (
    Block,
    Chart,
    Column,
    Estimate,
    Gallery,
    Report,
    Section,
    Series,
    Shown,
    Table,
    Text,
)
from cls_report.page.thumbnails import Pictures
from cls_report.reports.evaluation_sections import shown_name
from cls_report.run_folder import Run
from cls_report.statistics.comparison import Comparison, Difference
from cls_report.statistics.evaluated import Answers
from cls_report.statistics.intervals import in_points, in_words
from cls_report.statistics.pairing import Pair
from cls_report.statistics.seeds import differing_settings

_SHOWN = 24
_CURVES = ("valid_top1", "valid_macro_f1", "valid_loss", "train_loss")


def comparison_report(
    first: Run, second: Run, split: str, both: Pair, comparison: Comparison
) -> Report:
    """Make the report of two runs whose predictions for a split were paired and compared."""
    pictures = Pictures(second.root)
    names = (first.name, second.name)
    sections = [
        Section(
            key="summary",
            title="Summary",
            blocks=(
                Text(text=comparison.verdict, tone="verdict"),
                _overall(comparison, names, split),
                _right_and_wrong(comparison, both, names),
            ),
        ),
        Section(
            key="images",
            title="Images on which they part",
            blocks=tuple(_galleries(both, names, pictures)),
        ),
        Section(
            key="classes",
            title="Classes",
            blocks=(_differences("Classes", "class", comparison.by_class, names),),
        ),
        Section(
            key="slices",
            title="Slices",
            blocks=tuple(
                _differences(f"By {key}", key, found, names)
                for key, found in comparison.by_slice.items()
            ),
        ),
        Section(key="training", title="Training", blocks=tuple(_curves((first, second)))),
        Section(key="settings", title="Settings", blocks=(_settings(first, second),)),
    ]
    return Report(
        title=f"{names[0]} and {names[1]}",
        subtitle=f"compared on the same {len(both.first)} images of {split}",
        sections=tuple(section for section in sections if section.blocks),
        pictures=tuple(pictures.addresses),
    )


def _overall(comparison: Comparison, names: tuple[str, str], split: str) -> Table:
    overall, f1, loss = comparison.overall, comparison.macro_f1, comparison.loss
    return Table(
        title=f"All {overall.images} images of {split}",
        columns=(
            Column(title="figure", kind="text", values=("top-1", "macro-F1", "loss, nats")),
            Column(
                title=names[0],
                kind="text",
                values=(in_words(overall.first), f"{f1.first:.1%}", f"{loss.first:.3f}"),
            ),
            Column(
                title=names[1],
                kind="text",
                values=(in_words(overall.second), f"{f1.second:.1%}", f"{loss.second:.3f}"),
            ),
            Column(
                title="difference (95 % interval)",
                kind="text",
                values=(
                    in_points(overall.difference),
                    in_points(f1.difference),
                    _signed(loss.difference),
                ),
            ),
        ),
        note=f"p = {overall.p:.3g}, McNemar's test: only images that one run alone answers rightly can part the runs.",
    )


def _signed(difference: Estimate) -> str:
    value, low, high = difference.value, difference.low, difference.high
    bounds = f" ({low:+.3f} to {high:+.3f})" if low is not None and high is not None else ""
    return "-" if value is None else f"{value:+.3f}{bounds}"


def _right_and_wrong(comparison: Comparison, both: Pair, names: tuple[str, str]) -> Table:
    overall = comparison.overall
    right = [
        int((each.logits.argmax(axis=1) == each.labels).sum()) for each in (both.first, both.second)
    ]
    together = right[0] - overall.only_first
    return Table(
        title="Who is right where",
        columns=(
            Column(
                title="images",
                kind="text",
                values=(
                    "both right",
                    f"only {names[0]} right",
                    f"only {names[1]} right",
                    "both wrong",
                ),
            ),
            Column(
                title="count",
                kind="count",
                values=(
                    together,
                    overall.only_first,
                    overall.only_second,
                    overall.images - together - overall.only_first - overall.only_second,
                ),
            ),
        ),
    )


def _galleries(both: Pair, names: tuple[str, str], pictures: Pictures) -> Iterator[Block]:
    answers = Answers.of(both.first), Answers.of(both.second)
    for alone, winner, loser in ((both.only_second, 1, 0), (both.only_first, 0, 1)):
        rows = np.flatnonzero(alone)
        rows = rows[np.argsort(-answers[loser].confidence[rows], kind="stable")]
        title = f"Only {names[winner]} is right"
        shown = tuple(
            Shown(
                picture=place,
                title=_name(answers[winner], answers[winner].answer[row]),
                lines=(
                    f"{names[winner]}: {answers[winner].confidence[row]:.0%} sure",
                    f"{names[loser]}: {_name(answers[loser], answers[loser].answer[row])}, "
                    f"{answers[loser].confidence[row]:.0%} sure",
                    str(both.first.ids[row]),
                ),
            )
            for row in rows[:_SHOWN]
            if (place := pictures.place(str(both.first.ids[row]))) >= 0
        )
        if shown:
            yield Gallery(title=f"{title}, {len(shown)} of {len(rows)}", shown=shown)
        else:
            yield Text(
                text=f"{title}: {len(rows) or 'no'} images"
                + (", whose files are not here." if len(rows) else ".")
            )


def _name(answers: Answers, index: int) -> str:
    return shown_name(answers.classes[int(index)])


def _differences(
    title: str, what: str, found: Sequence[Difference], names: tuple[str, str]
) -> Table:
    return Table(
        title=title,
        columns=(
            Column(title=what, kind="text", values=tuple(shown_name(each.name) for each in found)),
            Column(title="images", kind="count", values=tuple(each.images for each in found)),
            Column(
                title=f"{names[0]} right",
                kind="share_estimate",
                values=tuple(each.first for each in found),
            ),
            Column(
                title=f"{names[1]} right",
                kind="share_estimate",
                values=tuple(each.second for each in found),
            ),
            Column(
                title="difference",
                kind="share_estimate",
                values=tuple(each.difference for each in found),
            ),
            Column(
                title="p, adjusted", kind="number", values=tuple(each.adjusted_p for each in found)
            ),
        ),
        note="p is adjusted for asking of so many parts at once (Holm); else one of twenty equal parts would differ.",
    )


def _curves(runs: tuple[Run, Run]) -> Iterator[Block]:
    for name in _CURVES:
        series = tuple(
            Series(
                name=run.name,
                x=tuple(row["epoch"] + 1 for row in rows),
                y=tuple(row[name] for row in rows),
            )
            for run in runs
            if (rows := [row for row in run.history if name in row])
        )
        if series:
            unit = "number" if name.endswith("loss") else "share"
            yield Chart(
                title=name,
                x_title="epoch",
                y_title=name,
                x_unit="count",
                y_unit="share" if unit == "share" else "number",
                series=series,
            )


def _settings(first: Run, second: Run) -> Block:
    found = differing_settings(first.config, second.config)
    if not found:
        return Text(text="The two configurations are the same, but for the seed and the name.")
    return Table(
        title="Settings that differ",
        columns=(
            Column(title="setting", kind="text", values=tuple(found)),
            Column(title=first.name, kind="text", values=tuple(one for one, _ in found.values())),
            Column(
                title=second.name, kind="text", values=tuple(other for _, other in found.values())
            ),
        ),
    )
