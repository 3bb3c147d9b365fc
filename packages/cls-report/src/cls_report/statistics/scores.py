"""Every figure of an evaluation, each with its 95 % interval.

Shapes: N images, C classes. The names and values of top-1, top-5 and macro-F1 are those that training logs.
"""

from dataclasses import dataclass

import numpy as np

from cls_report.page.blocks import Estimate
from cls_report.statistics.calibration import calibration_error
from cls_report.statistics.confusion_counts import Counts, Weighted, divide
from cls_report.statistics.evaluated import Answers, in_top
from cls_report.statistics.intervals import Clusters, Floats, Resamples, bootstrap, share


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Figures of one class. Precision has no value where the class was never answered, recall where it has no image.

    Attributes:
        name: of the class.
        support: images of it.
        answered: answers of it.
        precision: share of its answers that are right.
        recall: share of its images that are.
        f1: 2 right / (support + answered).
    """

    name: str
    support: int
    answered: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True, slots=True)
class EvaluationScores:
    """Figures of one set of images.

    Macro means are over the classes that occur as truth or answer, as torchmetrics takes them; a precision or recall
    without images counts as 0 in them. AUROC is one class against the rest, the mean over classes that have both.
    The loss is the mean negative log-likelihood in nats, unsmoothed and unweighted.
    """

    images: int
    right: int
    groups: int | None
    top1: Estimate
    top5: Estimate
    macro_precision: Estimate
    macro_recall: Estimate
    macro_f1: Estimate
    auroc: Estimate
    loss: Estimate
    calibration_error: Estimate
    by_class: tuple[ClassScores, ...]


def score(answers: Answers, resamples: Resamples | None = None) -> EvaluationScores:
    """Compute all figures."""
    truth, clusters = answers.truth, answers.clusters
    images = len(truth)
    resamples = Resamples.draw(clusters) if resamples is None else resamples
    counts = Counts.of(answers)
    drawn = counts.weighted(resamples.weights)
    whole = counts.weighted(np.ones((1, images)))
    macro = {
        name: _macro(name, whole, drawn, counts, clusters) for name in ("precision", "recall", "f1")
    }
    losses = -answers.log_probabilities[np.arange(images), truth]
    return EvaluationScores(
        images=images,
        right=int(answers.right.sum()),
        groups=clusters.count if clusters.grouped else None,
        top1=share(answers.right, clusters),
        top5=share(in_top(answers, 5), clusters),
        macro_precision=macro["precision"],
        macro_recall=macro["recall"],
        macro_f1=macro["f1"],
        auroc=_auroc(answers, resamples),
        loss=_mean(losses, resamples, clusters),
        calibration_error=calibration_error(answers.confidence, answers.right, clusters),
        by_class=_by_class(answers),
    )


def _macro(
    name: str, whole: Weighted, drawn: Weighted, counts: Counts, clusters: Clusters
) -> Estimate:
    """Return a macro mean with its interval; `counts` tells how much each image moves it."""
    values: Floats = getattr(whole, name)[:, 0]
    moves = {
        "precision": (counts.right, counts.answer, whole.answered, None),
        "recall": (counts.right, counts.truth, whole.support, None),
        "f1": (2 * counts.right, counts.answer, whole.support + whole.answered, counts.truth),
    }
    gained, shared, by, also = moves[name]
    shares = shared if also is None else shared + also
    scale = divide(np.ones(len(values)), by[:, 0])
    influence = gained.T @ scale - shares.T @ (values * scale)
    return bootstrap(whole.macro(name)[0], drawn.macro(name), clusters.sums(influence))


def _mean(values: Floats, resamples: Resamples, clusters: Clusters) -> Estimate:
    weights = resamples.weights
    drawn = (weights @ values) / np.maximum(1e-12, weights.sum(axis=1))
    mean = float(values.mean()) if len(values) else float("nan")
    return bootstrap(mean, drawn, clusters.sums(values - mean))


def _auroc(answers: Answers, resamples: Resamples) -> Estimate:
    """Return the macro AUROC; its interval is of the images' influence on it (DeLong et al., Biometrics 44, 1988)."""
    images = len(answers.truth)
    total, used, influence = 0.0, 0, np.zeros(images)
    for index in np.unique(answers.truth):
        positive = answers.truth == index
        ahead, behind = int(positive.sum()), int((~positive).sum())
        if behind == 0:
            continue
        values = answers.log_probabilities[:, index]
        places = np.empty(images)
        places[positive] = _share_below(values[positive], values[~positive])
        places[~positive] = 1 - _share_below(values[~positive], values[positive])
        area = float(places[positive].mean())
        total, used = total + area, used + 1
        influence += (places - area) * np.where(positive, 1 / ahead, 1 / behind)
    if used == 0:
        return Estimate(value=None)
    return _on_the_logit_scale(total / used, float((resamples.weights @ (influence / used)).std()))


def _on_the_logit_scale(value: float, deviation: float) -> Estimate:
    """Return a share near 1 with an interval that stays below 1: bounds on its own scale cover it too seldom."""
    if not 0 < value < 1:
        return Estimate(value=value)
    middle, half = np.log(value / (1 - value)), 1.959964 * deviation / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-bound))) for bound in (middle - half, middle + half))
    return Estimate(value=value, low=low, high=high)


def _share_below(values: Floats, others: Floats) -> Floats:
    """Return the share of others [M] that lie below each value [N]; of those that are equal, half."""
    ordered = np.sort(others)
    return (
        np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    ) / (2 * len(ordered))


def _by_class(answers: Answers) -> tuple[ClassScores, ...]:
    scores = []
    for index, name in enumerate(answers.classes):
        of_truth, of_answer = answers.truth == index, answers.answer == index
        either = of_truth | of_answer
        support, answered = int(of_truth.sum()), int(of_answer.sum())
        scores.append(
            ClassScores(
                name,
                support,
                answered,
                precision=share(answers.right[of_answer], answers.clusters.take(of_answer)),
                recall=share(answers.right[of_truth], answers.clusters.take(of_truth)),
                f1=_f1(share(answers.right[either], answers.clusters.take(either))),
            )
        )
    return tuple(scores)


def _f1(right_of_either: Estimate) -> Estimate:
    """Turn the share of right ones among a class's images and answers into F1: 2 s / (1 + s), which grows with it."""
    bounds = (right_of_either.value, right_of_either.low, right_of_either.high)
    value, low, high = (None if bound is None else 2 * bound / (1 + bound) for bound in bounds)
    return Estimate(value=value, low=low, high=high)
