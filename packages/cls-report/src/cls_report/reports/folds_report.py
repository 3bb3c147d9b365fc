"""Folds of one data set, pooled: every image answered by a network that did not train on it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cls_data import Predictions
from cls_report.errors import ReportError
from cls_report.page.blocks import Block, Facts, Gallery, Report, Section, Shown, Text
from cls_report.page.thumbnails import Pictures
from cls_report.reports.evaluation_sections import (
    classes_table,
    confusion_block,
    reliability_chart,
    risk_coverage_chart,
    scores_block,
    shown_name,
    slice_tables,
)
from cls_report.run_folder import Run
from cls_report.statistics.evaluated import Answers
from cls_report.statistics.scores import score
from cls_report.statistics.seeds import differing_settings

_SHOWN_SUSPECTS = 60
_FOLD = "data.fold"


def pooled(runs: Sequence[Run]) -> Predictions:
    """Join the answers of all folds for their valid rows, in the order of the folds.

    Raises:
        ReportError: the runs are no folds of one data set and recipe, or one is lacking or there twice.
    """
    folds = [(run.config["data"].get("fold"), run.config["data"].get("folds")) for run in runs]
    if wrong := [str(run.path) for run, (fold, _) in zip(runs, folds, strict=True) if fold is None]:
        raise ReportError(f"not a fold (data.fold was not set): {', '.join(wrong)}; {_HOW}")
    count = folds[0][1]
    if sorted(fold for fold, _ in folds) != list(range(count)):
        raise ReportError(
            f"expected the folds 0 to {count - 1} once each, got {[fold for fold, _ in folds]}; {_HOW}"
        )
    for run in runs[1:]:
        if differing := [
            key for key in differing_settings(runs[0].config, run.config) if key != _FOLD
        ]:
            raise ReportError(
                f"{runs[0].path} and {run.path} differ in more than the fold: {', '.join(differing[:10])}"
            )
    parts = [run.predictions["valid"] for run in runs]
    if any(part.classes.tolist() != parts[0].classes.tolist() for part in parts):
        raise ReportError(
            "the folds know different classes: a class lies in too few groups; ask for fewer folds"
        )
    together = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("ids", "labels", "logits", "groups", "metadata", "sizes")
    }
    return Predictions(classes=parts[0].classes, **together)


_HOW = "the folds come from: uv run apps/train -m data.folds=5 data.fold=0,1,2,3,4"


def label_suspects(predictions: Predictions) -> NDArray[np.int64]:
    """Return rows whose label is likely wrong, the likeliest first: int64 [K].

    Confident learning (Northcutt et al., JAIR 70, 2021) through cleanlab, ranked by how little the network believes the
    label; the answers must be of networks that did not train on the rows.

    Raises:
        ReportError: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise ReportError(
            "label errors are found through cleanlab, which is not installed: "
            "uv run --extra label-errors apps/report RUN... --folds FILE"
        ) from error
    present, labels = np.unique(predictions.labels, return_inverse=True)
    # cleanlab wants every class among the labels; those of which no row was dealt to valid have none.
    probabilities = np.exp(Answers.of(predictions).log_probabilities[:, present])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    found = find_label_issues(
        labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    return np.asarray(found, np.int64)


def folds_report(runs: Sequence[Run]) -> Report:
    """Make the report of all folds together."""
    predictions = pooled(runs)
    answers, pictures = Answers.of(predictions), Pictures(runs[0].root)
    scores = score(answers)
    name = "out of fold"
    summary: list[Block] = [
        scores_block(name, scores),
        Text(
            text="Each image was answered by the network of the fold in which it was valid. Each network chose its "
            "best epoch by that fold, so the figures flatter a little."
        ),
        Facts(
            facts={
                run.name: f"fold {run.config['data']['fold']}, {len(run.predictions['valid'])} images"
                for run in runs
            }
        ),
    ]
    confidence = {"softmax": answers}
    sections = [
        Section(key="summary", title="Summary", blocks=tuple(summary)),
        Section(
            key="labels", title="Suspected labels", blocks=_suspects(predictions, answers, pictures)
        ),
        Section(
            key="classes", title="Classes", blocks=(classes_table(f"Classes, {name}", scores, {}),)
        ),
        Section(
            key="mistakes",
            title="Mistakes",
            blocks=(
                confusion_block(f"Who is taken for whom, {name}", predictions, answers, pictures),
            ),
        ),
        Section(
            key="confidence",
            title="Confidence",
            blocks=(
                reliability_chart(f"Does confidence mean what it says, {name}", confidence),
                risk_coverage_chart(f"What rejecting unsure answers brings, {name}", confidence),
            ),
        ),
        Section(
            key="slices", title="Slices", blocks=tuple(slice_tables(name, predictions, answers))
        ),
    ]
    return Report(
        title=f"{len(runs)} folds",
        subtitle=f"{len(predictions)} images, each answered by a network that did not train on it",
        sections=tuple(section for section in sections if section.blocks),
        pictures=tuple(pictures.addresses),
    )


def _suspects(predictions: Predictions, answers: Answers, pictures: Pictures) -> tuple[Block, ...]:
    try:
        rows = label_suspects(predictions)
    except ReportError as error:
        return (Text(text=str(error), tone="faint"),)
    shown = []
    for row in rows[:_SHOWN_SUSPECTS]:
        if (place := pictures.place(str(predictions.ids[row]))) >= 0:
            given = float(np.exp(answers.log_probabilities[row, answers.truth[row]]))
            lines = (
                f"network: {shown_name(answers.classes[answers.answer[row]])}, {answers.confidence[row]:.1%} sure",
                f"label believed {given:.1%}",
                str(predictions.ids[row]),
            )
            title = f"labeled {shown_name(answers.classes[answers.truth[row]])}"
            shown.append(Shown(picture=place, title=title, lines=lines))
    intro = Text(
        text=f"{len(rows)} of {len(predictions)} labels are suspected (confident learning), by networks that are right "
        f"on {answers.right.mean():.1%} of the images. The weaker they are, the more sound labels they suspect: look "
        "before you change any."
    )
    if not shown:
        return (intro,)
    return (intro, Gallery(title=f"The likeliest {len(shown)}", shown=tuple(shown)))
