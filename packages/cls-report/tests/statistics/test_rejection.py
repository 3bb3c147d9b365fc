from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cls_report.statistics.rejection import choose_reject, risk_coverage

CLASSES = ("a", "b", "c")


def draw_probabilities(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities [N, 3], and labels from them."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet((0.4, 0.4, 0.4), images)
    labels = (probabilities.cumsum(axis=1) > generator.random((images, 1))).argmax(axis=1)
    return probabilities, labels


def test_risk_coverage_has_a_point_for_each_distinct_confidence() -> None:
    curve = risk_coverage(np.array([0.5, 0.9, 0.9, 0.7]), np.array([False, True, False, True]))
    assert curve.thresholds.tolist() == [0.9, 0.7, 0.5]
    assert curve.coverage.tolist() == [0.5, 0.75, 1.0]
    assert curve.risk == pytest.approx([1 / 2, 1 / 3, 1 / 2])


def test_risk_coverage_of_no_images_is_empty() -> None:
    assert len(risk_coverage(np.empty(0), np.empty(0, bool)).thresholds) == 0


@given(
    seed=st.integers(0, 2**32 - 1),
    level=st.floats(0.05, 1),
    wanted=st.sampled_from(["precision", "coverage"]),
)
@settings(deadline=None, max_examples=100)
def test_threshold_reaches_the_required_level(seed: int, level: float, wanted: Any) -> None:
    probabilities, labels = draw_probabilities(80, seed)
    correct, confidence = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    reject = choose_reject(probabilities, labels, CLASSES, wanted=wanted, level=level).reject
    if reject is None:
        assert wanted == "precision"
        assert (1 - risk_coverage(confidence, correct).risk).max() < level
        return
    accepted = np.array([not reject.rejects("a", value) for value in confidence])
    reached = correct[accepted].mean() if wanted == "precision" else accepted.mean()
    assert reached >= level


def test_only_classes_with_enough_predictions_have_their_own_threshold() -> None:
    probabilities, labels = draw_probabilities(400)
    probabilities[:, 2] /= 1000  # then class c is hardly ever predicted
    reject = choose_reject(
        probabilities, labels, CLASSES, wanted="coverage", level=0.8, per_class=True
    ).reject
    assert reject is not None
    assert set(reject.by_class) == {"a", "b"}


@pytest.mark.parametrize("per_class", [False, True])
def test_an_unreachable_precision_gives_a_note_with_the_highest_one(per_class: bool) -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    labels = np.array([1, 0])
    choice = choose_reject(
        probabilities, labels, ("a", "b"), wanted="precision", level=0.9, per_class=per_class
    )
    assert choice.reject is None
    assert choice.notes == (
        "no rejection threshold: none reaches a precision of 90.0%; the highest on 2 images is "
        "50.0%",
    )


def test_a_class_that_cannot_reach_the_precision_has_the_threshold_of_all_classes() -> None:
    confidence = np.linspace(0.99, 0.6, 100)
    predicted = np.tile([0, 1], 50)
    rows = np.arange(100)
    probabilities = np.zeros((100, 2))
    probabilities[rows, predicted] = confidence
    probabilities[rows, 1 - predicted] = 1 - confidence
    labels = predicted.copy()
    labels[1::4] = 0  # half of the predictions of b are wrong, the most confident one first
    choice = choose_reject(
        probabilities, labels, ("a", "b"), wanted="precision", level=0.7, per_class=True
    )
    assert choice.reject is not None
    assert set(choice.reject.by_class) == {"a"}
    assert choice.notes == (
        "class 'b' uses the rejection threshold of all classes, because none of its own reaches a "
        "precision of 70.0%; the highest on 50 images is 50.0%",
    )


def test_threshold_uses_the_given_predictions() -> None:
    probabilities = np.array([[0.4, 0.6], [0.3, 0.7], [0.9, 0.1]])
    reject = choose_reject(
        probabilities,
        np.array([0, 1, 0]),
        ["a", "b"],
        wanted="precision",
        level=1.0,
        predicted=np.array([0, 1, 0]),
    ).reject
    assert reject is not None
    assert reject.threshold == 0.4


def test_seven_errors_in_a_hundred_reach_a_precision_of_93_percent() -> None:
    probabilities = np.tile([0.8, 0.2], (100, 1))
    labels = (np.arange(100) < 7).astype(int)
    choice = choose_reject(probabilities, labels, ["a", "b"], wanted="precision", level=0.93)
    assert choice.reject is not None
    assert choice.reject.threshold == 0.8
