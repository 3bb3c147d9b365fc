import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cls_export import Calibration, LabelsMapping, Preprocessing, Reject
from cls_export.runtime.predictions import interpret_logits

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


def test_vector_calibration_changes_confidence_but_not_order(
    labels: LabelsMapping,
) -> None:
    calibrated = labels.model_copy(update={"calibration": VECTOR})
    (prediction,) = interpret_logits(row(3.0, 2.5, 0.0, -1.0), calibrated, top_k=3)
    (plain,) = interpret_logits(row(3.0, 2.5, 0.0, -1.0), labels, top_k=3)
    assert (
        [name for name, _ in prediction.top_k]
        == [name for name, _ in plain.top_k]
        == ["", "0", "00"]
    )
    assert prediction.confidence == pytest.approx(np.exp(3.0) / np.exp([3.0, 4.5, 0.0, -1.0]).sum())


@given(st.lists(st.floats(-30, 30, width=32), min_size=4, max_size=4))
def test_label_has_largest_logit_for_any_calibration(
    values: list[float],
) -> None:
    logits = row(*values)
    for calibration in (None, VECTOR):
        (prediction,) = interpret_logits(
            logits, LABELS.model_copy(update={"calibration": calibration}), top_k=4
        )
        assert prediction.label == prediction.top_k[0][0] == LABELS.classes[int(logits.argmax())]


def test_nan_logits_are_rejected(labels: LabelsMapping) -> None:
    for reject in (None, NEVER):
        (prediction,) = interpret_logits(
            row(1.0, float("nan"), 0.0, 0.0), labels.model_copy(update={"reject": reject}), top_k=1
        )
        assert prediction.rejected


def test_predictions_are_comparable_and_hashable(labels: LabelsMapping) -> None:
    one, same = (
        interpret_logits(row(3.0, 1.0, 0.0, 0.0), labels, 2),
        interpret_logits(row(3.0, 1.0, 0.0, 0.0), labels, 2),
    )
    assert one == same
    assert len({*one, *same}) == 1
    assert one != interpret_logits(row(0.0, 1.0, 0.0, 0.0), labels, 2)
