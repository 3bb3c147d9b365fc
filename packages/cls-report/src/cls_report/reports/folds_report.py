"""The report of cross-validation folds: pooled predictions and likely label errors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cls_data import Predictions
from cls_report.errors import ReportError
from cls_report.page.blocks import Block, Facts, Gallery, GalleryItem, Report, Section, Text
from cls_report.page.thumbnails import Thumbnails
from cls_report.reports.evaluation_blocks import (
    class_name,
    classes_table,
    confusion_matrix,
    displayable_images,
    reliability_diagram,
    risk_coverage_chart,
    scores_block,
    slice_tables,
)
from cls_report.run_folder import Run, differing_settings
from cls_report.statistics.evaluated_predictions import EvaluatedPredictions
from cls_report.statistics.evaluation import Evaluation
from cls_report.statistics.intervals import Integers

_MAX_SUSPECTS = 60
_FOLD_KEY = "data.fold"
_HOW_TO_TRAIN = "to train the folds: uv run apps/train -m data.folds=5 data.fold=0,1,2,3,4"


def build_folds_report(runs: Sequence[Run]) -> Report:
    """Build the report of all folds together; its errors are those of `pool_folds`."""
    predictions = pool_folds(runs)
    evaluation = Evaluation.from_predictions("out of fold", predictions)
    thumbnails = Thumbnails(runs[0].data_root, runs[0].labels.preprocessing)
    label_errors = _label_error_blocks(evaluation, thumbnails)
    classes = classes_table("Classes, out of fold", evaluation.scores)
    matrix = confusion_matrix("Confusion matrix, out of fold", evaluation, thumbnails)
    confidence = (
        reliability_diagram("Reliability diagram, out of fold", evaluation),
        risk_coverage_chart("Risk-coverage curve, out of fold", evaluation),
    )
    sections = (
        Section(key="summary", title="Summary", blocks=_summary_blocks(runs, evaluation)),
        Section(key="labels", title="Likely label errors", blocks=label_errors),
        Section(key="classes", title="Classes", blocks=(classes,)),
        Section(key="mistakes", title="Mistakes", blocks=(matrix,)),
        Section(key="confidence", title="Confidence", blocks=confidence),
        Section(key="slices", title="Slices", blocks=tuple(slice_tables(evaluation))),
    )
    return Report.from_sections(
        f"{len(runs)} folds",
        f"{len(evaluation.predictions)} images, each predicted by a model that did not train on it",
        sections,
        thumbnails.urls,
    )


def pool_folds(runs: Sequence[Run]) -> Predictions:
    """Concatenate the predictions of all folds for their valid split.

    Raises:
        ReportError: The runs are not the folds of one data set and recipe, each exactly once.
    """
    _check_folds(runs)
    folds = [run.predictions_for("valid") for run in runs]
    classes = folds[0].classes
    if any(fold.classes.tolist() != classes.tolist() for fold in folds):
        raise ReportError(
            "the folds have different classes, because some class has too few groups; use fewer "
            "folds"
        )

    def concatenate(name: str) -> Any:
        arrays = [getattr(fold, name) for fold in folds]
        return np.concatenate(arrays)

    return Predictions(
        ids=concatenate("ids"),
        labels=concatenate("labels"),
        logits=concatenate("logits"),
        classes=classes,
        groups=concatenate("groups"),
        metadata=concatenate("metadata"),
        sizes=concatenate("sizes"),
    )


def _check_folds(runs: Sequence[Run]) -> None:
    folds = []
    for run in runs:
        fold = run.settings.data.fold
        if fold is None:
            raise ReportError(f"{run.path}: not a fold (data.fold is not set); {_HOW_TO_TRAIN}")
        folds.append(fold)

    first = runs[0]
    count = first.settings.data.folds
    if count is None:
        raise ReportError(f"{first.path}: data.folds is not set; {_HOW_TO_TRAIN}")
    if sorted(folds) != list(range(count)):
        raise ReportError(
            f"expected each of the folds 0 to {count - 1} once, got {folds}; {_HOW_TO_TRAIN}"
        )

    for run in runs[1:]:
        settings = differing_settings(first, run)
        keys = [key for key in settings if key != _FOLD_KEY]
        if keys:
            names = ", ".join(keys[:10])
            raise ReportError(f"{first.path} and {run.path} differ in more than the fold: {names}")


def find_label_errors(evaluated: EvaluatedPredictions) -> Integers:
    """Return rows whose label is likely wrong, most likely first: int64 [K].

    Confident learning (Northcutt et al., JAIR 70, 2021) by cleanlab, ordered by the probability
    of the label. The predictions must be from models that did not train on the rows.

    Raises:
        ReportError: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise ReportError(
            "Finding label errors needs cleanlab, which is not installed. Run: "
            "uv run --extra label-errors apps/report RUN... --folds FILE"
        ) from error

    # cleanlab requires at least one row of each class.
    present, labels = np.unique(evaluated.labels, return_inverse=True)
    probabilities = np.exp(evaluated.log_probabilities[:, present])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    rows = find_label_issues(
        labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    return np.asarray(rows, np.int64)


def _summary_blocks(runs: Sequence[Run], evaluation: Evaluation) -> tuple[Block, ...]:
    facts = {}
    for run in runs:
        fold = run.settings.data.fold
        images = len(run.predictions_for("valid"))
        facts[run.name] = f"fold {fold}, {images} images"

    text = (
        "Each image was predicted by the model of the fold that held it out. That fold also "
        "selected the model's best epoch, so the metrics are slightly optimistic."
    )
    scores = scores_block("Out-of-fold predictions", evaluation.scores)
    return scores, Text(text=text), Facts(facts=facts)


def _label_error_blocks(evaluation: Evaluation, thumbnails: Thumbnails) -> tuple[Block, ...]:
    evaluated = evaluation.softmax
    try:
        rows = find_label_errors(evaluated)
    except ReportError as error:
        return (Text(text=str(error), tone="muted"),)

    items = []
    for row, name, image in displayable_images(evaluation, rows[:_MAX_SUSPECTS], thumbnails):
        label = class_name(evaluated, evaluated.labels[row])
        predicted = class_name(evaluated, evaluated.predicted[row])
        probability = np.exp(-evaluated.losses[row])
        item = GalleryItem(
            image=image,
            title=f"label {label}",
            lines=(
                f"predicted {predicted}, confidence {evaluated.confidence[row]:.1%}",
                f"probability of the label {probability:.1%}",
                name,
            ),
        )
        items.append(item)

    accuracy = evaluated.correct.mean()
    intro = Text(
        text=f"{len(rows)} of {len(evaluated)} labels are likely wrong, according to confident "
        f"learning with models of {accuracy:.1%} accuracy. Less accurate models flag more correct "
        "labels: look at an image before you change its label."
    )
    if not items:
        return (intro,)
    return (intro, Gallery(title=f"The {len(items)} most likely errors", items=tuple(items)))
