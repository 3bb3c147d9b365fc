"""Calibration and rejection thresholds in the exported labels mapping."""

import numpy as np
import pytest
import torch

from cls_data import EvaluationOutputs
from cls_export import LabelsMapping, Preprocessing
from cls_train.composition.config import Stages
from cls_train.errors import RunFailedError
from cls_train.stages.calibrate import calibrate

LABELS = LabelsMapping.from_classes(
    {"a": 0, "b": 1, "c": 2}, Preprocessing(size=(4, 4), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
)
OVERCONFIDENCE = 4.0
"""Factor by which the logits exceed those that the labels were drawn from."""


def valid(images: int = 2000) -> EvaluationOutputs:
    draws = np.random.default_rng(0)
    logits = draws.normal(0, 1.5, (images, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (probabilities.cumsum(axis=1) > draws.random((images, 1))).argmax(axis=1)
    return EvaluationOutputs(
        "valid",
        torch.tensor(OVERCONFIDENCE * logits, dtype=torch.float32),
        torch.tensor(labels),
        torch.arange(images),
    )


def stages(**settings: object) -> Stages:
    return Stages.model_validate(
        {"evaluate": True, "export": True, "identity_tolerance": 0.0, **settings}
    )


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_calibration_recovers_the_scale_and_lowers_the_error(method: str) -> None:
    labels, errors = calibrate(LABELS, valid(), [None] * 2000, stages(calibrate=method))
    assert labels.calibration is not None
    assert labels.calibration.method == method
    assert np.allclose(labels.calibration.scale, 1 / OVERCONFIDENCE, rtol=0.15)
    assert errors is not None
    assert errors.after.value < 0.04 < 0.1 < errors.before.value


def test_cross_fitting_keeps_groups_together() -> None:
    alone, grouped = (
        calibrate(LABELS, valid(), groups, stages(calibrate="temperature"))[1]
        for groups in ([None] * 2000, [str(row // 100) for row in range(2000)])
    )
    assert alone is not None
    assert grouped is not None
    assert alone.after.value != grouped.after.value  # other folds
    assert alone.before.value == grouped.before.value


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_thresholds_reach_the_precision_target(method: str) -> None:
    outputs = valid()
    target = {"precision": 0.9, "per_class": True}
    labels, _ = calibrate(LABELS, outputs, [None] * 2000, stages(calibrate=method, reject=target))
    assert labels.reject is not None
    assert labels.calibration is not None
    scaled = labels.calibration.apply(outputs.logits.numpy())
    probabilities = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    predicted = outputs.logits.argmax(dim=1).numpy()
    is_accepted = [
        not labels.reject.rejects(LABELS.classes[index], row[index])
        for index, row in zip(predicted.tolist(), probabilities, strict=True)
    ]
    is_correct = predicted == outputs.labels.numpy()
    assert 0.9 <= float(is_correct[is_accepted].mean()) < 0.95


def wrong_outputs(images: int = 2000) -> EvaluationOutputs:
    outputs = valid(images)
    wrong_labels = (outputs.logits.argmax(dim=1) + 1) % 3
    return EvaluationOutputs("valid", outputs.logits, wrong_labels, outputs.index)


UNREACHABLE = (
    "no rejection threshold: none reaches a precision of 99.0%; the highest on 2000 images is 0.0%"
)


@pytest.mark.parametrize("per_class", [False, True])
def test_an_unreachable_precision_is_exported_without_a_threshold_and_with_a_note(
    per_class: bool,
) -> None:
    target = {"precision": 0.99, "per_class": per_class}
    labels, _ = calibrate(LABELS, wrong_outputs(), [None] * 2000, stages(reject=target))
    assert labels.reject is None
    assert labels.confidence_notes == (UNREACHABLE,)
    assert LabelsMapping.from_json(labels.to_json()) == labels


def test_an_unreachable_precision_that_is_required_is_an_error_with_its_key_path() -> None:
    target = {"precision": 0.99, "required": True}
    with pytest.raises(
        RunFailedError,
        match=rf"stages.reject.precision: {UNREACHABLE}. Lower it, or set stages.reject.required=f",
    ):
        calibrate(LABELS, wrong_outputs(), [None] * 2000, stages(reject=target))


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_a_few_dozen_images_are_not_calibrated(method: str) -> None:
    labels, effect = calibrate(LABELS, valid(24), [None] * 24, stages(calibrate=method))
    assert labels.calibration is None
    assert effect is None
    (note,) = labels.confidence_notes
    assert note.startswith("not calibrated: too few images")


def test_a_calibrated_network_is_not_calibrated_again() -> None:
    outputs = valid(20_000)
    calibrated = EvaluationOutputs(
        "valid", outputs.logits / OVERCONFIDENCE, outputs.labels, outputs.index
    )
    labels, effect = calibrate(LABELS, calibrated, [None] * 20_000, stages(calibrate="temperature"))
    assert labels.calibration is None
    assert effect is None
    (note,) = labels.confidence_notes
    assert note.startswith("not calibrated: no improvement")


def test_without_settings_the_mapping_stays_unchanged() -> None:
    assert calibrate(LABELS, valid(9), [None] * 9, stages()) == (LABELS, None)
