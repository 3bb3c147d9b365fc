from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cls_export import Calibration, Classifier, ImageError, LabelsMapping, Reject
from cls_export.contract.calibration import log_softmax
from cls_export.runtime.predictions import Prediction, interpret
from cls_export.runtime.tracks import aggregate


def answers(labels: LabelsMapping, *logits: list[float]) -> list[Prediction]:
    return interpret(np.array(logits, np.float32), labels, top_k=4)


@pytest.fixture
def rejecting(labels: LabelsMapping) -> LabelsMapping:
    reject = Reject(threshold=0.6, wanted="coverage", level=0.9, images=10)
    return labels.model_copy(update={"reject": reject})


CLEAR, BLURRED, OTHER = [0.0, 0.0, 0.0, 3.0], [0.1, 0.0, 0.0, 0.2], [0.0, 4.0, 0.0, 0.0]


def test_one_frame_that_reads_otherwise_does_not_change_a_number(labels: LabelsMapping) -> None:
    track = aggregate(answers(labels, CLEAR, CLEAR, OTHER, CLEAR), labels)
    assert (track.label, track.frames, track.counted, track.rejected) == ("23", 4, 4, False)


def test_log_probabilities_are_summed(labels: LabelsMapping) -> None:
    summed = log_softmax(np.array([CLEAR, BLURRED, OTHER])).sum(axis=0)
    expected = np.exp(summed) / np.exp(summed).sum()
    track = aggregate(answers(labels, CLEAR, BLURRED, OTHER), labels)
    assert track.confidence == pytest.approx(expected.max())
    assert dict(track.top_k) == pytest.approx(
        dict(zip(labels.classes, expected.tolist(), strict=True))
    )


def test_rejected_frames_have_no_vote(rejecting: LabelsMapping) -> None:
    track = aggregate(answers(rejecting, CLEAR, BLURRED, BLURRED), rejecting)
    alone = aggregate(answers(rejecting, CLEAR), rejecting)
    assert (track.frames, track.counted) == (3, 1)
    assert track.confidence == alone.confidence == answers(rejecting, CLEAR)[0].confidence


def test_a_track_of_rejected_frames_is_rejected_whatever_they_sum_to(
    rejecting: LabelsMapping,
) -> None:
    track = aggregate(answers(rejecting, *[BLURRED] * 200), rejecting)
    assert (track.label, track.counted, track.rejected) == ("23", 0, True)
    assert track.confidence > 0.9


def test_frames_that_contradict_each_other_are_rejected(rejecting: LabelsMapping) -> None:
    track = aggregate(answers(rejecting, [0.0, 3.0, 0.0, 0.0], CLEAR), rejecting)
    assert track.counted == 2
    assert track.rejected


def test_dependent_frames_make_an_answer_less_sure_but_not_another(labels: LabelsMapping) -> None:
    frames = answers(labels, *[CLEAR] * 10, OTHER)
    sure, half = (aggregate(frames, labels, independent=share) for share in (1.0, 0.1))
    assert sure.label == half.label
    assert sure.confidence > half.confidence
    one = answers(labels, CLEAR)
    assert aggregate(one, labels, independent=0.1).confidence == pytest.approx(one[0].confidence)


def test_the_classifier_joins_its_own_answers_with_its_calibration(
    exported: Path, image_files: list[Path]
) -> None:
    classifier = Classifier(exported)
    calibration = Calibration(method="temperature", scale=(0.5,), images=9)
    classifier.labels = classifier.labels.model_copy(update={"calibration": calibration})
    predictions = classifier.predict(image_files)
    scaled = np.stack([log_softmax(prediction.logits * 0.5) for prediction in predictions])
    for prediction, expected in zip(predictions, np.exp(scaled).max(axis=1), strict=True):
        assert prediction.confidence == pytest.approx(expected)
    track = classifier.aggregate(predictions)
    assert track.label == classifier.labels.classes[int(scaled.sum(axis=0).argmax())]


def test_an_error_among_a_tracks_answers_is_named(labels: LabelsMapping) -> None:
    nothing: Any = [*answers(labels, [1.0, 2.0, 3.0, 4.0]), None]
    with pytest.raises(ValueError, match="takes predictions, got None"):
        aggregate(nothing, labels)
    found: Any = [*answers(labels, [1.0, 2.0, 3.0, 4.0]), ImageError("box 3 is empty")]
    with pytest.raises(
        ValueError, match=r"takes predictions, got ImageError\('box 3 is empty'\); leave out what"
    ):
        aggregate(found, labels)


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        ([], {}, "a track needs at least one prediction"),
        ([[1.0, 2.0, 3.0, 4.0]], {"independent": 0}, "independent must be above 0"),
        ([[1.0, 2.0, 3.0, 4.0]], {"top_k": 0}, "top_k must be at least 1, got 0"),
    ],
)
def test_nothing_to_join_is_refused(
    labels: LabelsMapping, given: Any, settings: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        aggregate(answers(labels, *given) if given else [], labels, **settings)


def test_answers_of_another_model_are_refused(labels: LabelsMapping) -> None:
    logits: NDArray[np.float32] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="the predictions have 3 classes, the labels 4"):
        aggregate([Prediction("a", 1.0, (), False, logits)], labels)
