"""Paired comparison of two models on the same images.

Images that both models predict correctly, or neither, carry no information about the difference.
Leaving them out detects smaller differences than a comparison of two separate intervals.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cls_data import Predictions
from cls_report.errors import ReportError
from cls_report.statistics.estimates import Estimate
from cls_report.statistics.evaluated_predictions import EvaluatedPredictions
from cls_report.statistics.evaluation import Evaluation
from cls_report.statistics.intervals import (
    Booleans,
    Floats,
    Integers,
    bca_interval,
    bootstrap_weights,
    design_effect,
    mean_interval,
    proportion_interval,
)
from cls_report.statistics.paired_tests import (
    SIGNIFICANCE_LEVEL,
    holm_adjust,
    mcnemar_test,
    required_images,
    sign_flip_test,
)
from cls_report.statistics.scores import macro_f1
from cls_report.statistics.slices import Slice

_MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class PairedEvaluations:
    """Evaluations of two runs on the same images, in the same order, with the same classes."""

    first: Evaluation
    second: Evaluation


@dataclass(frozen=True, slots=True)
class AccuracyDifference:
    """The difference in accuracy of two runs on some images.

    Attributes:
        name: The class or slice of the images.
        only_first: Number of images that only the first run predicts correctly.
        only_second: Number of images that only the second run predicts correctly.
        difference: Second minus first, with the paired interval.
        design_effect: Inflation of the difference's variance by clustering; 1 without clusters.
        p: McNemar's exact test, or the sign-flip test if images are clustered.
        adjusted_p: The same, adjusted for all classes or slices compared at once (Holm).
    """

    name: str
    images: int
    first: Estimate
    second: Estimate
    only_first: int
    only_second: int
    difference: Estimate
    design_effect: float
    p: float
    adjusted_p: float


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """A metric of both runs on all images, and second minus first with its paired interval."""

    first: float
    second: float
    difference: Estimate


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two runs: accuracy on all images, by class, and by slice; F1 and loss.

    The loss is the mean negative log-likelihood, in nats. The verdict is one sentence.
    """

    overall: AccuracyDifference
    macro_f1: MetricDifference
    loss: MetricDifference
    by_class: tuple[AccuracyDifference, ...]
    by_slice: dict[str, tuple[AccuracyDifference, ...]]
    verdict: str


def pair_predictions(
    split: str,
    first: Predictions,
    second: Predictions,
    *,
    commands: Sequence[str] = (),
) -> PairedEvaluations:
    """Evaluate two runs on one split, with the second run's images in the order of the first.

    Args:
        split: The split.
        first: Predictions of the first run.
        second: Predictions of the second run.
        commands: The commands that evaluate the runs again, for an error message.

    Raises:
        ReportError: The runs have different images, labels, or classes.
    """
    columns = _matching_columns(first, second)
    rows = _matching_rows(first, second, commands)
    new_index = np.argsort(columns)
    logits = second.logits[rows]
    reordered = Predictions(
        ids=second.ids[rows],
        labels=new_index[second.labels[rows]],
        logits=logits[:, columns],
        classes=first.classes,
        groups=second.groups[rows],
        metadata=second.metadata[rows],
        sizes=second.sizes[rows],
    )

    conflicts = np.flatnonzero(reordered.labels != first.labels)
    if conflicts.size:
        row = conflicts[0]
        first_label = first.classes[first.labels[row]]
        second_label = first.classes[reordered.labels[row]]
        raise ReportError(
            f"{conflicts.size} image(s) have different labels in the two runs, for example "
            f"{first.ids[row]}: {first_label!r} and {second_label!r}"
        )

    return PairedEvaluations(
        first=Evaluation.from_predictions(split, first),
        second=Evaluation.from_predictions(split, reordered),
    )


def _matching_columns(first: Predictions, second: Predictions) -> Integers:
    """Return the class index in the second run for each class of the first: int64 [C]."""
    first_names = first.classes.tolist()
    second_names = second.classes.tolist()
    if set(first_names) != set(second_names):
        difference = _describe_difference(first_names, second_names, "class(es)")
        raise ReportError(f"the runs have different classes: {difference}")
    columns = [second_names.index(name) for name in first_names]
    return np.array(columns)


def _matching_rows(first: Predictions, second: Predictions, commands: Sequence[str]) -> Integers:
    """Return the row of the second run for each image of the first: int64 [N]."""
    first_keys = _occurrence_keys(first)
    second_keys = _occurrence_keys(second)
    if set(first_keys) != set(second_keys):
        difference = _describe_difference(first.ids.tolist(), second.ids.tolist(), "image(s)")
        advice = "Evaluate both on the same data"
        if commands:
            advice += f": {' && '.join(commands)}"
        raise ReportError(f"the runs were evaluated on different images: {difference}. {advice}")

    row_of = {}
    for row, key in enumerate(second_keys):
        row_of[key] = row
    rows = [row_of[key] for key in first_keys]
    return np.array(rows, dtype=np.int64)


def _occurrence_keys(predictions: Predictions) -> list[tuple[str, int]]:
    """Return each image with its occurrence number, for images in more than one row."""
    occurrences: Counter[str] = Counter()
    keys = []
    for image in predictions.ids.tolist():
        occurrence = occurrences[image]
        occurrences[image] += 1
        keys.append((image, occurrence))

    return keys


def _describe_difference(first: Sequence[str], second: Sequence[str], what: str) -> str:
    """Name what only one of the runs has."""
    only_in = {"first": set(first) - set(second), "second": set(second) - set(first)}
    descriptions = []
    for run, names in only_in.items():
        if not names:
            continue
        named = sorted(names)[:_MAX_NAMED]
        examples = ", ".join(map(repr, named))
        if len(names) > _MAX_NAMED:
            examples += ", ..."
        descriptions.append(f"{len(names)} {what} only in the {run} run ({examples})")

    return "; ".join(descriptions) or "the same names, but a different number of rows"


def compare(
    paired: PairedEvaluations, names: tuple[str, str] = ("the first", "the second")
) -> Comparison:
    """Compare two runs."""
    first = paired.first.softmax
    second = paired.second.softmax
    weights = bootstrap_weights(first.clusters)
    all_images = np.ones(len(first), np.bool_)
    overall = _accuracy_difference("all images", all_images, paired)
    classes = []
    for index, name in enumerate(first.classes):
        rows = np.asarray(first.labels == index)
        if rows.any():
            classes.append(Slice(name, rows))

    by_slice = {}
    for key, slices in paired.first.slices.items():
        by_slice[key] = _accuracy_differences(slices, paired)

    return Comparison(
        overall=overall,
        macro_f1=_macro_f1_difference(first, second, weights),
        loss=_loss_difference(first, second, weights),
        by_class=_accuracy_differences(classes, paired),
        by_slice=by_slice,
        verdict=_verdict(overall, names),
    )


def _macro_f1_difference(
    first: EvaluatedPredictions, second: EvaluatedPredictions, weights: Floats
) -> MetricDifference:
    single_sample = np.ones((1, len(first)))
    (first_f1,) = macro_f1(first, single_sample).tolist()
    (second_f1,) = macro_f1(second, single_sample).tolist()

    first_resampled = macro_f1(first, weights)
    second_resampled = macro_f1(second, weights)
    observed = second_f1 - first_f1
    resampled = second_resampled - first_resampled
    return MetricDifference(
        first=first_f1,
        second=second_f1,
        difference=bca_interval(observed, resampled),
    )


def _loss_difference(
    first: EvaluatedPredictions, second: EvaluatedPredictions, weights: Floats
) -> MetricDifference:
    increases = second.losses - first.losses
    difference = mean_interval(increases, first.clusters, weights)
    return MetricDifference(
        first=float(first.losses.mean()),
        second=float(second.losses.mean()),
        difference=difference,
    )


def _accuracy_differences(
    slices: Sequence[Slice], paired: PairedEvaluations
) -> tuple[AccuracyDifference, ...]:
    """Compare the runs on each slice, and adjust the p-values for their number."""
    differences = []
    p_values = []
    for each in slices:
        difference = _accuracy_difference(each.value, each.rows, paired)
        differences.append(difference)
        p_values.append(difference.p)

    for index, adjusted_p in enumerate(holm_adjust(p_values)):
        differences[index] = replace(differences[index], adjusted_p=adjusted_p)

    return tuple(differences)


def _accuracy_difference(
    name: str, rows: Booleans, paired: PairedEvaluations
) -> AccuracyDifference:
    clusters = paired.first.softmax.clusters.subset(rows)
    first = paired.first.softmax.correct[rows]
    second = paired.second.softmax.correct[rows]
    gains = second.astype(np.float64) - first
    only_first = int((gains < 0).sum())
    only_second = int((gains > 0).sum())
    if clusters.is_grouped:
        p = sign_flip_test(clusters.sum_by_cluster(gains))
    else:
        p = mcnemar_test(only_first, only_second)

    return AccuracyDifference(
        name=name,
        images=int(rows.sum()),
        first=proportion_interval(first, clusters),
        second=proportion_interval(second, clusters),
        only_first=only_first,
        only_second=only_second,
        difference=mean_interval(gains, clusters, bootstrap_weights(clusters)),
        design_effect=design_effect(gains, clusters),
        p=p,
        adjusted_p=p,
    )


def _verdict(overall: AccuracyDifference, names: tuple[str, str]) -> str:
    first_name, second_name = names
    first = overall.first.value
    second = overall.second.value
    assert first is not None
    assert second is not None
    accuracies = f"{first_name} {first:.1%}, {second_name} {second:.1%} top-1"
    p = f"p = {overall.p:.2g}"
    if overall.p < SIGNIFICANCE_LEVEL:
        better = second_name if overall.only_second > overall.only_first else first_name
        return f"{better} is better: {accuracies} on {overall.images} images ({p})."

    required = required_images(
        overall.images,
        overall.only_first,
        overall.only_second,
        overall.design_effect,
    )
    if required is None:
        advice = "The runs are equally accurate, so no number of images would tell them apart."
    elif required <= overall.images:
        advice = "Twice as many images might tell them apart."
    else:
        # Round up to two significant digits.
        digits = len(str(required))
        step = 10 ** max(0, digits - 2)
        rounded = math.ceil(required / step) * step
        advice = f"Detecting a difference this small takes about {rounded:,} images."

    return f"Not distinguishable on {overall.images} images: {accuracies} ({p}). {advice}"
