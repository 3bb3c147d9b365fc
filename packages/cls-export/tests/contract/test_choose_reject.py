import numpy as np

from cls_export.contract.calibration import choose_reject


def test_choose_reject_uses_given_predictions() -> None:
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


def test_choose_reject_tolerates_rounding_of_precision() -> None:
    probabilities = np.tile([0.8, 0.2], (100, 1))
    truth = (np.arange(100) < 7).astype(int)
    chosen = choose_reject(probabilities, truth, ["a", "b"], wanted="precision", level=0.93)
    assert chosen.threshold == 0.8
