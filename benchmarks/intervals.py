"""Measure how often 95% intervals cover the true value, and how often equal models differ.

Command: uv run python benchmarks/intervals.py [--evaluations 2000] [--images 364]
Duration: about 10 minutes on two cores.
Expected: for independent images, clustered images, and perfectly calibrated confidence, one row
per metric with the coverage of its intervals, between 93 and 97%; and false alarms of the paired
test, at most 5%.

The true values are those of 200,000 images from the same distribution. Eight classes have
frequencies of 8 to 1; the images of a cluster share part of their noise. For comparison, the last
metric is the percentile bootstrap of the calibration error, which many tools print.
"""

import argparse
import multiprocessing
from functools import partial

import numpy as np

from cls_export.contract.calibration import log_softmax
from cls_report import Clusters, Estimate, EvaluatedPredictions, EvaluationScores, compute_scores
from cls_report.statistics.calibration import expected_calibration_error
from cls_report.statistics.intervals import bootstrap_weights
from cls_report.statistics.paired_tests import mcnemar_test, sign_flip_test

CLASSES = 8
METRICS = (
    "top1",
    "top5",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "auroc",
    "loss",
    "calibration_error",
)
REPORTED_CLASSES = (0, 3, 7)
CLUSTERED = "clusters of about 6"
CALIBRATED = "perfect confidence"
KINDS = ("independent", CLUSTERED, CALIBRATED)
PERCENTILES = "percentile bootstrap of calibration error"
IMAGES_PER_CLUSTER = 6
POPULATION = 200_000


def main() -> None:
    """Simulate evaluations and print the coverage."""
    parser = argparse.ArgumentParser(description="Measure the coverage of intervals.")
    parser.add_argument("--evaluations", type=int, default=2000, help="number of evaluations")
    parser.add_argument("--images", type=int, default=364, help="images per evaluation")
    options = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool() as pool:
        for kind in KINDS:
            truth = true_values(kind)
            check = partial(check_coverage, images=options.images, kind=kind, truth=truth)
            results = pool.map(check, range(1, options.evaluations + 1), chunksize=20)
            print(f"\n{options.evaluations} evaluations of {options.images} images, {kind}")
            print(f"{'metric':<44}{'truth':>8}{'coverage':>10}")
            for name, value in truth.items():
                coverage = np.mean([result[name] for result in results])
                print(f"{name:<44}{value:>8.3f}{coverage:>10.1%}")
            compare = partial(is_false_alarm, images=options.images, kind=kind)
            alarms = pool.map(compare, range(options.evaluations))
            print(f"{'equal models that differ at p < 0.05':<52}{np.mean(alarms):>10.1%}")


def true_values(kind: str) -> dict[str, float]:
    """Return the metrics of a large population, by name."""
    population = draw_predictions(POPULATION, 0, kind)
    scores = compute_scores(population, np.ones((1, POPULATION)))
    truth = {}
    for name, estimate in estimates_by_name(scores).items():
        truth[name] = estimate.value or 0.0
    truth[PERCENTILES] = truth["calibration_error"]
    if kind == CALIBRATED:
        truth["calibration_error"] = truth[PERCENTILES] = 0.0
    return truth


def draw_predictions(images: int, seed: int, kind: str) -> EvaluatedPredictions:
    """Draw predictions with an accuracy of about 70%, overconfident unless `CALIBRATED`."""
    generator = np.random.default_rng([seed, KINDS.index(kind)])
    frequencies = np.linspace(CLASSES, 1, CLASSES)
    prior = frequencies / frequencies.sum()
    labels = generator.choice(CLASSES, images, p=prior)
    noise = generator.standard_normal((images, CLASSES))
    index = np.arange(images)
    if kind == CLUSTERED:
        drawn = generator.integers(0, max(1, images // IMAGES_PER_CLUSTER), images)
        _, index = np.unique(drawn, return_inverse=True)
        shared = generator.standard_normal((int(index.max()) + 1, CLASSES))
        noise = 0.8 * noise + 0.6 * shared[index]
    logits = 1.3 * noise
    logits[np.arange(images), labels] += 2.6
    if kind == CALIBRATED:
        # Draw the labels again, from the predicted probabilities.
        logits += np.log(prior)
        cumulative = np.exp(log_softmax(logits)).cumsum(axis=1)
        above = generator.random((images, 1)) > cumulative
        labels = above.sum(axis=1).clip(max=CLASSES - 1)
    return EvaluatedPredictions(
        labels=labels,
        predicted=logits.argmax(axis=1),
        log_probabilities=log_softmax(logits),
        classes=tuple(map(str, range(CLASSES))),
        clusters=Clusters(index.astype(np.int64), int(index.max()) + 1),
    )


def estimates_by_name(scores: EvaluationScores) -> dict[str, Estimate]:
    """Return all metrics, including those of a frequent, a medium, and a rare class."""
    estimates: dict[str, Estimate] = {name: getattr(scores, name) for name in METRICS}
    for index in REPORTED_CLASSES:
        of_class = scores.by_class[index]
        for name in ("recall", "precision", "f1"):
            estimates[f"{name}, class {index}"] = getattr(of_class, name)
    return estimates


def check_coverage(seed: int, images: int, kind: str, truth: dict[str, float]) -> dict[str, bool]:
    """Evaluate once, and return whether each interval covers the true value.

    An undefined interval counts as covering.
    """
    evaluated = draw_predictions(images, seed, kind)
    scores = compute_scores(evaluated, bootstrap_weights(evaluated.clusters, seed=seed))
    is_covered = {}
    for name, estimate in estimates_by_name(scores).items():
        if estimate.low is None or estimate.high is None:
            is_covered[name] = True
        else:
            is_covered[name] = estimate.low <= truth[name] <= estimate.high
    low, high = np.quantile(bootstrap_calibration_errors(evaluated, seed), [0.025, 0.975])
    is_covered[PERCENTILES] = bool(low <= truth[PERCENTILES] <= high)
    return is_covered


def bootstrap_calibration_errors(
    evaluated: EvaluatedPredictions, seed: int, rounds: int = 300
) -> list[float]:
    """Return the calibration errors of bootstrap samples of single images."""
    images = len(evaluated)
    samples = np.random.default_rng(seed).integers(0, images, (rounds, images))
    errors = []
    for rows in samples:
        confidence, correct = evaluated.confidence[rows], evaluated.correct[rows]
        errors.append(expected_calibration_error(confidence, correct))
    return errors


def is_false_alarm(seed: int, images: int, kind: str) -> bool:
    """Return whether the paired test finds a difference between two equally accurate models."""
    first = draw_predictions(images, 3 * seed + 1_000_000, kind)
    second = draw_predictions(images, 3 * seed + 1_000_001, kind)
    gains = second.correct.astype(np.float64) - first.correct
    if first.clusters.is_grouped:
        return sign_flip_test(first.clusters.sum_by_cluster(gains), seed) < 0.05
    return mcnemar_test(int((gains < 0).sum()), int((gains > 0).sum())) < 0.05


if __name__ == "__main__":
    main()
