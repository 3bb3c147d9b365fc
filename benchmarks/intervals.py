"""How often the 95 % intervals of an evaluation cover the truth, and how often equal runs are told apart.

Command: uv run python benchmarks/intervals.py [--evaluations 2000] [--images 364]    (about 10 minutes on two cores)
Expected: for images drawn one by one, for such that come in groups, and for answers whose confidence is perfect,
a row a figure with the share of evaluations whose interval covers the truth, which is to lie between 93 and 97 %; and
McNemar's false alarms, at most 5 %.

The truth is that of 200,000 images of the same kind. Eight classes occur 8 to 1 times as often; images of a group share
a part of their noise. Beside them the percentile bootstrap of the calibration error, which many tools print.
"""

import argparse
import multiprocessing
from functools import partial

import numpy as np

from cls_export.contract.calibration import expected_calibration_error, log_softmax
from cls_report.page.blocks import Estimate
from cls_report.statistics.evaluated import Answers
from cls_report.statistics.intervals import Clusters, Resamples
from cls_report.statistics.paired_tests import mcnemar, sign_flip
from cls_report.statistics.scores import EvaluationScores, score

CLASSES = 8
FIGURES = (
    "top1",
    "top5",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "auroc",
    "loss",
    "calibration_error",
)
KINDS = ("one by one", "in groups of about 6", PERFECT := "with perfect confidence")
PERCENTILES = "percentile bootstrap of calibration error"
_IMAGES_A_GROUP = 6
_TRUTH = 200_000


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description="Coverage of intervals.")
    parser.add_argument("--evaluations", type=int, default=2000)
    parser.add_argument("--images", type=int, default=364)
    options = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool() as pool:
        for kind in KINDS:
            truth = values(score(drawn(_TRUTH, 0, kind), Resamples(np.ones((1, _TRUTH)))))
            if kind == PERFECT:
                truth |= dict.fromkeys(("calibration_error", PERCENTILES), 0.0)
            one = partial(covered, images=options.images, kind=kind, truth=truth)
            found = pool.map(one, range(1, options.evaluations + 1), chunksize=20)
            print(f"\n{options.evaluations} evaluations of {options.images} images, {kind}")
            print(f"{'figure':<44}{'truth':>8}{'covered':>10}")
            for name, value in truth.items():
                print(f"{name:<44}{value:>8.3f}{np.mean([each[name] for each in found]):>10.1%}")
            alarms = pool.map(
                partial(false_alarm, images=options.images, kind=kind), range(options.evaluations)
            )
            print(f"{'equal runs told apart at p < 0.05':<52}{np.mean(alarms):>10.1%}")


def drawn(images: int, seed: int, kind: str) -> Answers:
    """Draw the answers of a network that is right about seven times in ten, and too sure of it unless it is perfect."""
    draws = np.random.default_rng([seed, KINDS.index(kind)])
    prior = np.linspace(CLASSES, 1, CLASSES)
    truth = draws.choice(CLASSES, images, p=prior / prior.sum())
    noise = draws.standard_normal((images, CLASSES))
    of = np.arange(images)
    if kind == KINDS[1]:
        _, of = np.unique(
            draws.integers(0, max(1, images // _IMAGES_A_GROUP), images), return_inverse=True
        )
        noise = 0.8 * noise + 0.6 * draws.standard_normal((int(of.max()) + 1, CLASSES))[of]
    logits = 1.3 * noise
    logits[np.arange(images), truth] += 2.6
    if kind == PERFECT:
        logits += np.log(
            prior / prior.sum()
        )  # then the truth is drawn anew, from what the network believes
        cumulated = np.exp(log_softmax(logits)).cumsum(axis=1)
        truth = (draws.random((images, 1)) > cumulated).sum(axis=1).clip(max=CLASSES - 1)
    clusters = Clusters(of.astype(np.int64), int(of.max()) + 1)
    return Answers(
        truth, logits.argmax(axis=1), log_softmax(logits), tuple(map(str, range(CLASSES))), clusters
    )


def estimates(scores: EvaluationScores) -> dict[str, Estimate]:
    """Return the figures, those of a class of many, of some and of few images among them."""
    found: dict[str, Estimate] = {name: getattr(scores, name) for name in FIGURES}
    for index in (0, 3, 7):
        found |= {
            f"{name}, class {index}": getattr(scores.by_class[index], name)
            for name in ("recall", "precision", "f1")
        }
    return found


def values(scores: EvaluationScores) -> dict[str, float]:
    """Return the figures without their intervals."""
    found = {name: estimate.value or 0.0 for name, estimate in estimates(scores).items()}
    return {**found, PERCENTILES: found["calibration_error"]}


def covered(seed: int, images: int, kind: str, truth: dict[str, float]) -> dict[str, bool]:
    """Evaluate once, and say which intervals cover the truth; one that the images cannot have covers all."""
    answers = drawn(images, seed, kind)
    found = {
        name: estimate.low is None
        or estimate.high is None
        or estimate.low <= truth[name] <= estimate.high
        for name, estimate in estimates(
            score(answers, Resamples.draw(answers.clusters, seed=seed))
        ).items()
    }
    low, high = np.quantile(_percentile_bootstrap(answers, seed), [0.025, 0.975])
    return {**found, PERCENTILES: bool(low <= truth[PERCENTILES] <= high)}


def _percentile_bootstrap(answers: Answers, seed: int, rounds: int = 300) -> list[float]:
    draws, confidence, right = np.random.default_rng(seed), answers.confidence, answers.right
    chosen = draws.integers(0, len(right), (rounds, len(right)))
    return [expected_calibration_error(confidence[rows], right[rows]) for rows in chosen]


def false_alarm(seed: int, images: int, kind: str) -> bool:
    """Compare two networks of equal skill on the same images; say whether the test tells them apart."""
    first, second = (
        drawn(images, seed, kind) for seed in (3 * seed + 1_000_000, 3 * seed + 1_000_001)
    )
    gains = second.right.astype(np.float64) - first.right
    if first.clusters.grouped:
        return sign_flip(first.clusters.sums(gains), seed) < 0.05
    return mcnemar(int((gains < 0).sum()), int((gains > 0).sum())) < 0.05


if __name__ == "__main__":
    main()
