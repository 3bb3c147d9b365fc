"""Every figure of an evaluation, each with its 95 % interval.

Shapes: N images, C classes. The names and values of top-1, top-5 and macro-F1 are those that training logs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cls_data import Predictions
from cls_export.calibration import log_softmax
from cls_report.calibration import calibration_error
from cls_report.content import Estimate
from cls_report.intervals import Clusters, Floats, Integers, Resamples, bootstrap, share


@dataclass(frozen=True, slots=True)
class Answers:
    """Predictions, ready to be counted.

    Attributes:
        truth: int64 [N].
        answer: int64 [N].
        log_probabilities: float64 [N, C].
        classes: C names.
        clusters: which images belong together.
    """

    truth: Integers
    answer: Integers
    log_probabilities: Floats
    classes: tuple[str, ...]
    clusters: Clusters

    @classmethod
    def of(cls, predictions: Predictions, probabilities: Floats | None = None) -> "Answers":
        """Take the softmax of the logits, or probabilities [N, C] that are given, for confidence."""
        logits = predictions.logits
        logs = log_softmax(logits) if probabilities is None else np.log(np.maximum(probabilities, 1e-300))
        return cls(
            predictions.labels.astype(np.int64),
            logits.argmax(axis=1).astype(np.int64),
            logs,
            tuple(map(str, predictions.classes)),
            Clusters.from_groups(predictions.groups),
        )

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is."""
        return np.asarray(self.answer == self.truth)

    @property
    def confidence(self) -> Floats:
        """Of each answer, 0 to 1."""
        return np.exp(self.log_probabilities[np.arange(len(self.answer)), self.answer])

    def take(self, rows: NDArray[np.bool_]) -> "Answers":
        """Return those of some images."""
        return Answers(
            self.truth[rows], self.answer[rows], self.log_probabilities[rows], self.classes, self.clusters.take(rows)
        )


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
    counts = _Counts.of(answers)
    drawn = counts.weighted(resamples.weights)
    whole = counts.weighted(np.ones((1, images)))
    macro = {name: _macro(name, whole, drawn, counts, clusters) for name in ("precision", "recall", "f1")}
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


def in_top(answers: Answers, k: int) -> NDArray[np.bool_]:
    """Say whether the truth [N] is among the k likeliest classes; a tie counts for the class of the lower index."""
    rows = np.arange(len(answers.truth))
    own = answers.log_probabilities[rows, answers.truth][:, None]
    before = np.arange(len(answers.classes))[None] < answers.truth[:, None]
    ahead = (answers.log_probabilities > own) | ((answers.log_probabilities == own) & before)
    return np.asarray(ahead.sum(axis=1) < k)


def macro_f1(answers: Answers, weights: Floats) -> Floats:
    """Return the macro-F1 [rounds] of weighted images, weights [rounds, N]."""
    return _Counts.of(answers).weighted(weights).macro("f1")


@dataclass(frozen=True, slots=True)
class _Weighted:
    """By class and sample: images, answers, and right answers, each float64 [C, rounds]."""

    support: Floats
    answered: Floats
    right: Floats

    @property
    def precision(self) -> Floats:
        return _divide(self.right, self.answered)

    @property
    def recall(self) -> Floats:
        return _divide(self.right, self.support)

    @property
    def f1(self) -> Floats:
        return _divide(2 * self.right, self.support + self.answered)

    def macro(self, name: str) -> Floats:
        """Return the mean [rounds] over the classes that occur."""
        occurs = self.support + self.answered > 0
        values: Floats = getattr(self, name)
        return _divide((values * occurs).sum(axis=0), occurs.sum(axis=0).astype(np.float64))


@dataclass(frozen=True, slots=True)
class _Counts:
    """Which images count for which class: sparse [C, N], by truth, by answer, and by answer where it is right."""

    truth: sparse.csr_array
    answer: sparse.csr_array
    right: sparse.csr_array

    @classmethod
    def of(cls, answers: Answers) -> "_Counts":
        images, shape = np.arange(len(answers.truth)), (len(answers.classes), len(answers.truth))
        ones = np.ones(len(images))
        return cls(
            sparse.csr_array((ones, (answers.truth, images)), shape),
            sparse.csr_array((ones, (answers.answer, images)), shape),
            sparse.csr_array((answers.right.astype(np.float64), (answers.answer, images)), shape),
        )

    def weighted(self, weights: Floats) -> _Weighted:
        """Count images of weights [rounds, N]."""
        return _Weighted(self.truth @ weights.T, self.answer @ weights.T, self.right @ weights.T)


def _divide(values: Floats, by: Floats) -> Floats:
    """Divide, with 0 where there is nothing to divide by."""
    return np.divide(values, by, out=np.zeros_like(values), where=by > 0)


def _macro(name: str, whole: _Weighted, drawn: _Weighted, counts: _Counts, clusters: Clusters) -> Estimate:
    """Return a macro mean with its interval; `counts` tells how much each image moves it."""
    values: Floats = getattr(whole, name)[:, 0]
    moves = {
        "precision": (counts.right, counts.answer, whole.answered, None),
        "recall": (counts.right, counts.truth, whole.support, None),
        "f1": (2 * counts.right, counts.answer, whole.support + whole.answered, counts.truth),
    }
    gained, shared, by, also = moves[name]
    shares = shared if also is None else shared + also
    scale = _divide(np.ones(len(values)), by[:, 0])
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
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * len(ordered))


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
