import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cls_export.contract.calibration import Calibration, Reject, log_softmax, softmax


def test_calibration_scales_logits_and_adds_the_bias() -> None:
    logits = np.array([[1.0, 2.0], [3.0, -1.0]], np.float32)
    temperature = Calibration(method="temperature", scale=(0.5,), images=1)
    vector = Calibration(method="vector", scale=(2, 3), bias=(0.5, -1), images=1)
    assert temperature.apply(logits).tolist() == [[0.5, 1.0], [1.5, -0.5]]
    assert vector.apply(logits).tolist() == [[2.5, 5.0], [6.5, -4.0]]


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=8))
def test_softmax_sums_to_one_and_agrees_with_log_softmax(values: list[float]) -> None:
    logits = np.array(values)
    probabilities = softmax(logits)
    assert probabilities.sum() == pytest.approx(1)
    assert np.exp(log_softmax(logits)) == pytest.approx(probabilities, abs=1e-12)


def test_calibration_rejects_a_wrong_number_of_scales_or_biases() -> None:
    with pytest.raises(ValueError, match="temperature needs one scale and no bias, got 2 and 0"):
        Calibration(method="temperature", scale=(1, 2), images=1)
    with pytest.raises(
        ValueError, match="vector needs a scale and a bias for each class, got 2 and 1"
    ):
        Calibration(method="vector", scale=(1, 2), bias=(0,), images=1)


def test_reject_uses_the_threshold_of_the_class_if_it_has_one() -> None:
    reject = Reject(threshold=0.5, by_class={"7": 0.9}, wanted="coverage", level=0.9, images=10)
    assert not reject.rejects("1", 0.6)
    assert reject.rejects("7", 0.6)


def test_reject_rejects_a_confidence_of_nan() -> None:
    reject = Reject(threshold=0.0, wanted="coverage", level=1.0, images=10)
    assert reject.rejects("1", float("nan"))
