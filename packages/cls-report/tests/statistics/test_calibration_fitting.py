from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cls_export.contract.calibration import Calibration, log_softmax
from cls_report.errors import CalibrationError
from cls_report.statistics.calibration import expected_calibration_error
from cls_report.statistics.calibration_fitting import cross_fit, fit_temperature, fit_vector

LogitsAndLabels = tuple[NDArray[np.float64], NDArray[np.int64]]


def draw(
    images: int, classes: int, scale: float, seed: int = 0, bias: float = 0.0
) -> LogitsAndLabels:
    """Draw logits, and labels from softmax(scale * logits + bias for class 0)."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3, (images, classes))
    scaled = scale * logits
    scaled[:, 0] += bias
    probabilities = np.exp(log_softmax(scaled))
    labels = (probabilities.cumsum(axis=1) > generator.random((images, 1))).argmax(axis=1)
    return logits, labels


def mean_loss(calibration: Calibration, logits: Any, labels: Any) -> float:
    log_probabilities = log_softmax(calibration.apply(logits))
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("scale", [0.2, 0.7, 1.5, 3.0])
def test_temperature_recovers_the_scale_of_the_labels(scale: float) -> None:
    calibration = fit_temperature(*draw(20_000, 5, scale))
    assert calibration.scale[0] == pytest.approx(scale, rel=0.05)
    assert calibration.images == 20_000


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 4), factor=st.floats(0.8, 1.25))
@example(seed=7563, scale=0.1015625, factor=0.8)  # worse than chance: the loss is least at scale 0
@settings(deadline=None, max_examples=50)
def test_temperature_has_the_lowest_loss(seed: int, scale: float, factor: float) -> None:
    logits, labels = draw(60, 4, scale, seed)
    if (logits.argmax(axis=1) == labels).all():
        return
    fitted = fit_temperature(logits, labels)
    other = fitted.model_copy(update={"scale": (fitted.scale[0] * factor,)})
    assert mean_loss(fitted, logits, labels) <= mean_loss(other, logits, labels) + 1e-8


def test_temperature_keeps_the_predictions_and_calibrates_the_confidence() -> None:
    logits, labels = draw(4000, 6, 0.3)
    calibration = fit_temperature(logits, labels)
    assert (calibration.apply(logits).argmax(axis=1) == logits.argmax(axis=1)).all()
    other_logits, other_labels = draw(4000, 6, 0.3, seed=1)
    correct = other_logits.argmax(axis=1) == other_labels
    before = np.exp(log_softmax(other_logits)).max(axis=1)
    after = np.exp(log_softmax(calibration.apply(other_logits))).max(axis=1)
    assert expected_calibration_error(before, correct) > 0.2
    assert expected_calibration_error(after, correct) < 0.03


def test_vector_recovers_the_bias_of_a_class() -> None:
    logits, labels = draw(20_000, 4, 0.5, bias=1.5)
    calibration = fit_vector(logits, labels, strength=1e-6)
    assert np.allclose(calibration.scale, 0.5, rtol=0.1)
    # Biases are determined up to a constant.
    bias = np.subtract(calibration.bias, calibration.bias[1])
    assert np.allclose(bias, [1.5, 0, 0, 0], atol=0.15)
    temperature = fit_temperature(logits, labels)
    assert mean_loss(calibration, logits, labels) < mean_loss(temperature, logits, labels)


def test_vector_with_a_strong_penalty_equals_the_temperature() -> None:
    logits, labels = draw(200, 3, 0.5)
    calibration = fit_vector(logits, labels, strength=1e6)
    assert np.allclose(calibration.scale, fit_temperature(logits, labels).scale[0], rtol=1e-3)
    assert np.allclose(calibration.bias, 0, atol=1e-4)


def test_vector_has_the_lowest_loss_when_a_scale_reaches_its_bound() -> None:
    logits, labels = draw(60, 4, 0.1, seed=4)
    fitted = fit_vector(logits, labels, strength=1e-6)
    assert min(fitted.scale) == pytest.approx(1e-9)
    for index in range(4):
        for step in (1e-3, -1e-3):
            scale = list(fitted.scale)
            scale[index] = max(1e-9, scale[index] + step)
            other = fitted.model_copy(update={"scale": tuple(scale)})
            assert mean_loss(fitted, logits, labels) <= mean_loss(other, logits, labels) + 1e-7


def fit_by_call(calls: list[int]) -> Any:
    """Return a fit whose scale is the number of the call, and which records its images."""

    def fit(logits: Any, labels: Any) -> Calibration:
        calls.append(len(labels))
        return Calibration(method="temperature", scale=(len(calls),), images=len(labels))

    return fit


def find_fits(logits: Any, probabilities: Any, folds: int) -> Any:
    """Return the number of the fit, from 1, that calibrated each image of `fit_by_call`."""
    fits = []
    for call in range(1, folds + 1):
        expected = np.exp(log_softmax(logits * call))
        fits.append(np.isclose(probabilities, expected, atol=0).all(axis=1))
    assert (np.sum(fits, axis=0) == 1).all()
    return np.argmax(fits, axis=0) + 1


@pytest.mark.parametrize("folds", [2, 5])
def test_cross_fit_calibrates_each_fold_with_the_others(folds: int) -> None:
    logits, labels = draw(400, 3, 0.5)
    calls: list[int] = []
    probabilities = cross_fit(logits, labels, fit_by_call(calls), folds=folds)
    used = find_fits(logits, probabilities, folds)
    assert calls == [400 - 400 // folds] * folds
    assert np.bincount(used)[1:].tolist() == [400 // folds] * folds


def test_cross_fit_keeps_groups_in_one_fold() -> None:
    logits, labels = draw(400, 3, 0.5)
    groups = np.arange(400) // 20
    calls: list[int] = []
    probabilities = cross_fit(logits, labels, fit_by_call(calls), groups=groups)
    used = find_fits(logits, probabilities, 5)
    assert calls == [320] * 5
    assert all(len(set(used[groups == group])) == 1 for group in range(20))


def test_cross_fit_has_one_fold_per_group_if_there_are_few() -> None:
    logits, labels = draw(90, 3, 0.5)
    calls: list[int] = []
    cross_fit(logits, labels, fit_by_call(calls), groups=np.arange(90) // 30)
    assert calls == [60] * 3
    with pytest.raises(CalibrationError, match="90 images of one group cannot be cross-validated"):
        cross_fit(logits, labels, fit_by_call(calls), groups=np.zeros(90, int))


def test_temperature_cannot_be_fitted_if_all_predictions_are_correct() -> None:
    with pytest.raises(CalibrationError, match="all 3 predictions are correct, so no temperature"):
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
            "labels must be integers from 0 to 1, got int64 from 0 to 2",
        ),
        (np.zeros((2, 2)), np.array([0.0, 1.0]), "labels must be integers"),
    ],
)
def test_fitting_rejects_invalid_logits_and_labels(logits: Any, labels: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        fit_temperature(logits, labels)
