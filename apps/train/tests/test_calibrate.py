"""What the exported mapping says of confidence, by what the stages ask for."""

import numpy as np
import pytest
import torch

from cls_data import EvaluationOutputs
from cls_export import LabelsMapping, Preprocessing
from cls_train.composition.config import Stages
from cls_train.errors import ConfigError
from cls_train.stages.calibrate import calibrate

LABELS = LabelsMapping.from_classes(
    {"a": 0, "b": 1, "c": 2}, Preprocessing(size=(4, 4), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
)
TOO_SURE = 4.0
"""How much larger logits are than those that labels are drawn by."""


def valid(images: int = 2000) -> EvaluationOutputs:
    draws = np.random.default_rng(0)
    logits = draws.normal(0, 1.5, (images, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (probabilities.cumsum(axis=1) > draws.random((images, 1))).argmax(axis=1)
    return EvaluationOutputs(
        "valid",
        torch.tensor(TOO_SURE * logits, dtype=torch.float32),
        torch.tensor(labels),
        torch.arange(images),
    )


def stages(**wanted: object) -> Stages:
    return Stages.model_validate(
        {"evaluate": True, "export": True, "identity_tolerance": 0.0, **wanted}
    )


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_what_is_asked_for_is_fitted_and_makes_confidence_truer(method: str) -> None:
    labels, figures = calibrate(LABELS, valid(), [None] * 2000, stages(calibrate=method))
    assert labels.calibration is not None
    assert labels.calibration.method == method
    assert np.allclose(labels.calibration.scale, 1 / TOO_SURE, rtol=0.15)
    assert figures is not None
    assert figures.after.value < 0.04 < 0.1 < figures.before.value


def test_groups_widen_what_the_figures_may_be() -> None:
    alone, grouped = (
        calibrate(LABELS, valid(), groups, stages(calibrate="temperature"))[1]
        for groups in ([None] * 2000, [str(row // 100) for row in range(2000)])
    )
    assert alone is not None
    assert grouped is not None
    assert alone.after.value != grouped.after.value  # other halves
    assert alone.before.value == grouped.before.value


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_a_precision_is_that_of_the_answers_that_the_network_gives(method: str) -> None:
    found = valid()
    wish = {"precision": 0.9, "per_class": True}
    labels, _ = calibrate(LABELS, found, [None] * 2000, stages(calibrate=method, reject=wish))
    assert labels.reject is not None
    assert labels.calibration is not None
    scaled = labels.calibration.apply(found.logits.numpy())
    probabilities = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    answers = found.logits.argmax(dim=1).numpy()
    kept = [
        not labels.reject.rejects(LABELS.classes[answer], row[answer])
        for answer, row in zip(answers.tolist(), probabilities, strict=True)
    ]
    assert 0.9 <= float((answers == found.labels.numpy())[kept].mean()) < 0.95


def test_a_precision_out_of_reach_is_said_with_the_setting() -> None:
    found = valid()
    wrong = EvaluationOutputs(
        "valid", found.logits, (found.logits.argmax(dim=1) + 1) % 3, found.index
    )
    with pytest.raises(
        ConfigError, match=r"stages.reject.precision: no threshold gives a precision of 99.0%"
    ):
        calibrate(LABELS, wrong, [None] * 2000, stages(reject={"precision": 0.99}))


def test_nothing_asked_for_is_nothing_changed() -> None:
    assert calibrate(LABELS, valid(9), [None] * 9, stages()) == (LABELS, None)
