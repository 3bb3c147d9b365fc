import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cls_export.contract.calibration import (
    Calibration,
    CalibrationError,
    Reject,
    choose_reject,
    cross_fitted,
    expected_calibration_error,
    fit_temperature,
    fit_vector,
    log_softmax,
    risk_coverage,
)

Draws = tuple[NDArray[np.float64], NDArray[np.int64]]


def drawn(images: int, classes: int, scale: float, seed: int = 0, bias: float = 0.0) -> Draws:
    """Logits, and labels that are drawn from softmax(scale * logits + bias for class 0)."""
    draws = np.random.default_rng(seed)
    logits = draws.normal(0, 3, (images, classes))
    shifted = scale * logits
    shifted[:, 0] += bias
    probabilities = np.exp(log_softmax(shifted))
    labels = (probabilities.cumsum(axis=1) > draws.random((images, 1))).argmax(axis=1)
    return logits, labels


def loss(calibration: Calibration, logits: Any, labels: Any) -> float:
    return float(-log_softmax(calibration.apply(logits))[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("scale", [0.2, 0.7, 1.5, 3.0])
def test_the_temperature_that_labels_were_drawn_with_is_found(scale: float) -> None:
    calibration = fit_temperature(*drawn(20_000, 5, scale))
    assert calibration.scale[0] == pytest.approx(scale, rel=0.05)
    assert calibration.images == 20_000


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 4), nudge=st.floats(0.8, 1.25))
@example(
    seed=7563, scale=0.1015625, nudge=0.8
)  # answers worse than chance: the best scale is 0, and none reaches it
@settings(deadline=None, max_examples=50)
def test_no_other_temperature_has_a_lower_loss(seed: int, scale: float, nudge: float) -> None:
    logits, labels = drawn(60, 4, scale, seed)
    if (logits.argmax(axis=1) == labels).all():
        return
    fitted = fit_temperature(logits, labels)
    other = fitted.model_copy(update={"scale": (fitted.scale[0] * nudge,)})
    assert loss(fitted, logits, labels) <= loss(other, logits, labels) + 1e-8


def test_a_temperature_changes_no_answer_and_makes_confidence_true() -> None:
    logits, labels = drawn(4000, 6, 0.3)
    calibration = fit_temperature(logits, labels)
    assert (calibration.apply(logits).argmax(axis=1) == logits.argmax(axis=1)).all()
    other_logits, other_labels = drawn(4000, 6, 0.3, seed=1)
    right = other_logits.argmax(axis=1) == other_labels
    before = expected_calibration_error(np.exp(log_softmax(other_logits)).max(axis=1), right)
    after = expected_calibration_error(
        np.exp(log_softmax(calibration.apply(other_logits))).max(axis=1), right
    )
    assert before > 0.2
    assert after < 0.03


def test_a_vector_also_finds_the_bias_of_a_class() -> None:
    logits, labels = drawn(20_000, 4, 0.5, bias=1.5)
    calibration = fit_vector(logits, labels, strength=1e-6)
    assert np.allclose(calibration.scale, 0.5, rtol=0.1)
    # A bias is known up to a constant that all classes share.
    assert np.allclose(
        np.subtract(calibration.bias, calibration.bias[1]), [1.5, 0, 0, 0], atol=0.15
    )
    assert loss(calibration, logits, labels) < loss(fit_temperature(logits, labels), logits, labels)


def test_a_strong_penalty_leaves_a_vector_at_the_temperature() -> None:
    logits, labels = drawn(200, 3, 0.5)
    calibration = fit_vector(logits, labels, strength=1e6)
    assert np.allclose(calibration.scale, fit_temperature(logits, labels).scale[0], rtol=1e-3)
    assert np.allclose(calibration.bias, 0, atol=1e-4)


def test_each_half_is_judged_by_a_fit_on_the_other() -> None:
    logits, labels = drawn(400, 3, 0.5)
    fitted: list[int] = []

    def fit(theirs: Any, truth: Any) -> Calibration:
        fitted.append(len(truth))
        return Calibration(method="temperature", scale=(len(fitted),), images=len(truth))

    probabilities = cross_fitted(logits, labels, fit)
    one, two = (
        np.isclose(probabilities, np.exp(log_softmax(logits * scale))).all(axis=1)
        for scale in (1, 2)
    )
    assert fitted == [200, 200]
    assert one.sum() == two.sum() == 200
    assert (one != two).all()


def test_images_of_one_group_stay_in_one_half() -> None:
    logits, labels = drawn(400, 3, 0.5)
    groups = np.arange(400) // 20
    halves: list[int] = []

    def fit(theirs: Any, truth: Any) -> Calibration:
        halves.append(len(truth))
        return Calibration(method="temperature", scale=(len(halves),), images=len(truth))

    probabilities = cross_fitted(logits, labels, fit, groups=groups)
    by_first = np.isclose(probabilities, np.exp(log_softmax(logits))).all(axis=1)
    assert halves == [200, 200]
    assert all(len(set(by_first[groups == group])) == 1 for group in range(20))


def test_answers_that_are_all_right_take_no_temperature() -> None:
    with pytest.raises(CalibrationError, match="all 3 answers are right, so no temperature fits"):
        fit_temperature(np.eye(3), np.arange(3))


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((3, 2)), np.zeros(2, int), r"got shapes \(3, 2\) and \(2,\)"),
        (np.zeros((0, 2)), np.zeros(0, int), "at least one image and two classes"),
        (np.full((2, 2), np.nan), np.zeros(2, int), "not a finite number"),
        (
            np.zeros((2, 2)),
            np.array([0, 2]),
            "labels must be whole numbers from 0 to 1, got int64 from 0 to 2",
        ),
        (np.zeros((2, 2)), np.array([0.0, 1.0]), "labels must be whole numbers"),
    ],
)
def test_what_nothing_can_be_fitted_to_is_named(logits: Any, labels: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        fit_temperature(logits, labels)


def test_the_calibration_error_is_that_of_the_formula() -> None:
    # Two bins: three answers of 0.9 of which two are right, and one of 0.2 that is wrong.
    confidence, right = np.array([0.9, 0.9, 0.9, 0.2]), np.array([True, True, False, False])
    expected = 3 / 4 * abs(0.9 - 2 / 3) + 1 / 4 * 0.2
    assert expected_calibration_error(confidence, right, bins=2) == pytest.approx(expected)
    assert math.isnan(expected_calibration_error(np.empty(0), np.empty(0, bool)))


def test_risk_and_coverage_are_counted_at_each_confidence_that_occurs() -> None:
    curve = risk_coverage(np.array([0.5, 0.9, 0.9, 0.7]), np.array([False, True, False, True]))
    assert curve.thresholds.tolist() == [0.9, 0.7, 0.5]
    assert curve.coverage.tolist() == [0.5, 0.75, 1.0]
    assert curve.risk == pytest.approx([1 / 2, 1 / 3, 1 / 2])


@given(
    seed=st.integers(0, 2**32 - 1),
    level=st.floats(0.05, 1),
    wanted=st.sampled_from(["precision", "coverage"]),
)
@settings(deadline=None, max_examples=100)
def test_a_threshold_keeps_what_was_wanted_of_it(seed: int, level: float, wanted: Any) -> None:
    logits, labels = drawn(80, 3, 0.6, seed)
    probabilities = np.exp(log_softmax(logits))
    right, confidence = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    try:
        reject = choose_reject(probabilities, labels, ("a", "b", "c"), wanted=wanted, level=level)
    except CalibrationError:
        assert wanted == "precision"
        assert (1 - risk_coverage(confidence, right).risk).max() < level
        return
    kept = np.array([not reject.rejects("a", value) for value in confidence])
    assert (right[kept].mean() if wanted == "precision" else kept.mean()) >= level


def test_thresholds_of_single_classes_are_for_those_with_enough_answers() -> None:
    logits, labels = drawn(400, 3, 0.6)
    logits[:, 2] -= 5  # which is then hardly ever the answer
    reject = choose_reject(
        np.exp(log_softmax(logits)),
        labels,
        ("a", "b", "c"),
        wanted="coverage",
        level=0.8,
        per_class=True,
    )
    assert set(reject.by_class) == {"a", "b"}


def test_a_precision_out_of_reach_is_answered_with_the_highest() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    with pytest.raises(
        CalibrationError,
        match=r"no threshold gives a precision of 90.0% .* 2 images; the highest is 50",
    ):
        choose_reject(probabilities, np.array([1, 0]), ("a", "b"), wanted="precision", level=0.9)


def test_a_calibration_has_as_many_numbers_as_its_method_says() -> None:
    with pytest.raises(ValueError, match="temperature takes one scale and no bias, got 2 and 0"):
        Calibration(method="temperature", scale=(1, 2), images=1)
    with pytest.raises(ValueError, match="vector takes a scale and a bias a class, got 2 and 1"):
        Calibration(method="vector", scale=(1, 2), bias=(0,), images=1)


def test_a_class_of_its_own_threshold_is_judged_by_it() -> None:
    reject = Reject(threshold=0.5, by_class={"7": 0.9}, wanted="coverage", level=0.9, images=10)
    assert not reject.rejects("1", 0.6)
    assert reject.rejects("7", 0.6)
