"""What logits mean: the label is the network's own, and what is no number is no answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cls_export import Calibration, LabelsMapping, Preprocessing
from cls_export.contract.calibration import Reject, choose_reject
from cls_export.runtime.predictions import interpret

VECTOR = Calibration(
    method="vector", scale=(1.0, 1.0, 1.0, 1.0), bias=(0.0, 2.0, 0.0, 0.0), images=9
)
LABELS = LabelsMapping.from_classes(
    {"b": 0, "a": 1, "d": 2, "c": 3},
    Preprocessing(size=(4, 4), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)),
)
NEVER = Reject(threshold=0.0, wanted="coverage", level=1.0, images=9)


def row(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_a_vector_calibration_changes_how_sure_an_answer_is_and_not_which(
    labels: LabelsMapping,
) -> None:
    calibrated = labels.model_copy(update={"calibration": VECTOR})
    (answer,) = interpret(row(3.0, 2.5, 0.0, -1.0), calibrated, top_k=3)
    (plain,) = interpret(row(3.0, 2.5, 0.0, -1.0), labels, top_k=3)
    assert (
        [name for name, _ in answer.top_k] == [name for name, _ in plain.top_k] == ["", "0", "00"]
    )
    assert answer.confidence == pytest.approx(np.exp(3.0) / np.exp([3.0, 4.5, 0.0, -1.0]).sum())


@given(st.lists(st.floats(-30, 30, width=32), min_size=4, max_size=4))
def test_the_label_is_that_of_the_largest_logit_whatever_the_calibration(
    values: list[float],
) -> None:
    logits = row(*values)
    for calibration in (None, VECTOR):
        (answer,) = interpret(
            logits, LABELS.model_copy(update={"calibration": calibration}), top_k=4
        )
        assert answer.label == answer.top_k[0][0] == LABELS.classes[int(logits.argmax())]


def test_logits_that_are_no_numbers_give_a_rejected_answer(labels: LabelsMapping) -> None:
    for reject in (None, NEVER):
        (answer,) = interpret(
            row(1.0, float("nan"), 0.0, 0.0), labels.model_copy(update={"reject": reject}), top_k=1
        )
        assert answer.rejected


def test_answers_can_be_compared_and_counted(labels: LabelsMapping) -> None:
    one, same = (
        interpret(row(3.0, 1.0, 0.0, 0.0), labels, 2),
        interpret(row(3.0, 1.0, 0.0, 0.0), labels, 2),
    )
    assert one == same
    assert len({*one, *same}) == 1
    assert one != interpret(row(0.0, 1.0, 0.0, 0.0), labels, 2)


def test_a_threshold_is_chosen_for_the_answers_that_will_be_given() -> None:
    probabilities = np.array([[0.4, 0.6], [0.3, 0.7], [0.9, 0.1]])
    chosen = choose_reject(
        probabilities,
        np.array([0, 1, 0]),
        ["a", "b"],
        wanted="precision",
        level=1.0,
        answers=np.array([0, 1, 0]),
    )
    assert chosen.threshold == 0.4


def test_seven_wrong_of_a_hundred_reach_a_precision_of_093() -> None:
    probabilities = np.tile([0.8, 0.2], (100, 1))
    truth = (np.arange(100) < 7).astype(int)
    chosen = choose_reject(probabilities, truth, ["a", "b"], wanted="precision", level=0.93)
    assert chosen.threshold == 0.8
