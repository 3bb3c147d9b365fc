from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cls_report.errors import CalibrationError
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
    try:
        reject = choose_reject(probabilities, labels, CLASSES, wanted=wanted, level=level)
    except CalibrationError:
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
    )
    assert set(reject.by_class) == {"a", "b"}


def test_an_unreachable_precision_is_reported_with_the_highest_one() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    with pytest.raises(
        CalibrationError,
        match=r"no threshold reaches a precision of 90.0% .* 2 images; the highest precision is 50",
    ):
        choose_reject(probabilities, np.array([1, 0]), ("a", "b"), wanted="precision", level=0.9)


def test_threshold_uses_the_given_predictions() -> None:
    probabilities = np.array([[0.4, 0.6], [0.3, 0.7], [0.9, 0.1]])
    reject = choose_reject(
        probabilities,
        np.array([0, 1, 0]),
        ["a", "b"],
        wanted="precision",
        level=1.0,
        predicted=np.array([0, 1, 0]),
    )
    assert reject.threshold == 0.4


def test_seven_errors_in_a_hundred_reach_a_precision_of_93_percent() -> None:
    probabilities = np.tile([0.8, 0.2], (100, 1))
    labels = (np.arange(100) < 7).astype(int)
    reject = choose_reject(probabilities, labels, ["a", "b"], wanted="precision", level=0.93)
    assert reject.threshold == 0.8
