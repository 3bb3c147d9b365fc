from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cls_export import Calibration, Classifier, ImageError, LabelsMapping, Reject
from cls_export.contract.calibration import log_softmax
from cls_export.runtime.predictions import Prediction, interpret_logits
from cls_export.runtime.tracks import aggregate_predictions


def make_predictions(labels: LabelsMapping, *logits: list[float]) -> list[Prediction]:
    return interpret_logits(np.array(logits, np.float32), labels, top_k=4)


@pytest.fixture
def rejecting(labels: LabelsMapping) -> LabelsMapping:
    reject = Reject(threshold=0.6, wanted="coverage", level=0.9, images=10)
    return labels.model_copy(update={"reject": reject})


CLEAR, BLURRED, OTHER = [0.0, 0.0, 0.0, 3.0], [0.1, 0.0, 0.0, 0.2], [0.0, 4.0, 0.0, 0.0]


def test_single_deviating_frame_does_not_change_label(labels: LabelsMapping) -> None:
    track = aggregate_predictions(make_predictions(labels, CLEAR, CLEAR, OTHER, CLEAR), labels)
    assert (track.label, track.frames, track.accepted_frames, track.rejected) == ("23", 4, 4, False)


def test_aggregate_sums_log_probabilities(labels: LabelsMapping) -> None:
    summed = log_softmax(np.array([CLEAR, BLURRED, OTHER])).sum(axis=0)
    expected = np.exp(summed) / np.exp(summed).sum()
    track = aggregate_predictions(make_predictions(labels, CLEAR, BLURRED, OTHER), labels)
    assert track.confidence == pytest.approx(expected.max())
    assert dict(track.top_k) == pytest.approx(
        dict(zip(labels.classes, expected.tolist(), strict=True))
    )


def test_rejected_frames_are_left_out(rejecting: LabelsMapping) -> None:
    track = aggregate_predictions(make_predictions(rejecting, CLEAR, BLURRED, BLURRED), rejecting)
    alone = aggregate_predictions(make_predictions(rejecting, CLEAR), rejecting)
    assert (track.frames, track.accepted_frames) == (3, 1)
    assert track.confidence == alone.confidence == make_predictions(rejecting, CLEAR)[0].confidence


def test_track_of_rejected_frames_is_rejected(
    rejecting: LabelsMapping,
) -> None:
    track = aggregate_predictions(make_predictions(rejecting, *[BLURRED] * 200), rejecting)
    assert (track.label, track.accepted_frames, track.rejected) == ("23", 0, True)
    assert track.confidence > 0.9


def test_contradicting_frames_are_rejected(rejecting: LabelsMapping) -> None:
    track = aggregate_predictions(
        make_predictions(rejecting, [0.0, 3.0, 0.0, 0.0], CLEAR), rejecting
    )
    assert track.accepted_frames == 2
    assert track.rejected


def test_independent_fraction_lowers_confidence_but_keeps_label(labels: LabelsMapping) -> None:
    frames = make_predictions(labels, *[CLEAR] * 10, OTHER)
    sure, half = (
        aggregate_predictions(frames, labels, independent_fraction=share) for share in (1.0, 0.1)
    )
    assert sure.label == half.label
    assert sure.confidence > half.confidence
    one = make_predictions(labels, CLEAR)
    assert aggregate_predictions(one, labels, independent_fraction=0.1).confidence == pytest.approx(
        one[0].confidence
    )


def test_classifier_aggregates_with_calibration(exported: Path, image_files: list[Path]) -> None:
    classifier = Classifier(exported)
    calibration = Calibration(method="temperature", scale=(0.5,), images=9)
    classifier.labels = classifier.labels.model_copy(update={"calibration": calibration})
    predictions = classifier.predict(image_files)
    scaled = np.stack([log_softmax(prediction.logits * 0.5) for prediction in predictions])
    for prediction, expected in zip(predictions, np.exp(scaled).max(axis=1), strict=True):
        assert prediction.confidence == pytest.approx(expected)
    track = classifier.aggregate(predictions)
    assert track.label == classifier.labels.classes[int(scaled.sum(axis=0).argmax())]


def test_error_among_predictions_is_refused(labels: LabelsMapping) -> None:
    with_none: Any = [*make_predictions(labels, [1.0, 2.0, 3.0, 4.0]), None]
    with pytest.raises(ValueError, match="takes predictions, got None"):
        aggregate_predictions(with_none, labels)
    with_error: Any = [
        *make_predictions(labels, [1.0, 2.0, 3.0, 4.0]),
        ImageError("box 3 is empty"),
    ]
    with pytest.raises(
        ValueError, match=r"takes predictions, got ImageError\('box 3 is empty'\); leave out images"
    ):
        aggregate_predictions(with_error, labels)


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        ([], {}, "a track needs at least one prediction"),
        (
            [[1.0, 2.0, 3.0, 4.0]],
            {"independent_fraction": 0},
            "independent_fraction must be above 0",
        ),
        ([[1.0, 2.0, 3.0, 4.0]], {"top_k": 0}, "top_k must be a whole number of at least 1, got 0"),
    ],
)
def test_invalid_arguments_are_refused(
    labels: LabelsMapping, given: Any, settings: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        aggregate_predictions(make_predictions(labels, *given) if given else [], labels, **settings)


def test_predictions_of_another_model_are_refused(labels: LabelsMapping) -> None:
    logits: NDArray[np.float32] = np.zeros(3, np.float32)
    with pytest.raises(
        ValueError, match="the predictions have 3 classes, the labels mapping has 4"
    ):
        aggregate_predictions([Prediction("a", 1.0, (), False, logits)], labels)
