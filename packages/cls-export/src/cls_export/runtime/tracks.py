"""One answer for the frames of a track, of which some are blurred."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cls_export.contract.calibration import log_softmax
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.runtime.predictions import Prediction


@dataclass(frozen=True, slots=True)
class TrackPrediction:
    """The answer for a track.

    Attributes:
        label: the class with the largest sum of calibrated log-probabilities over the frames that count.
        confidence: of that class, 0-1: the softmax of these sums.
        top_k: the most probable classes with their confidences, best first.
        frames: how many there were.
        counted: how many of them were not rejected.
        rejected: whether this is no answer: no frame counts, or the confidence is below the class's threshold.
    """

    label: str
    confidence: float
    top_k: tuple[tuple[str, float], ...]
    frames: int
    counted: int
    rejected: bool


def aggregate(
    predictions: Sequence[Prediction],
    labels: LabelsMapping,
    *,
    top_k: int = 5,
    independent: float = 1.0,
) -> TrackPrediction:
    """Join a track's frames: log-probabilities are summed, as if each frame erred for itself.

    Rejected frames have no vote, unless all of them are rejected: then each has one, and the answer is rejected.

    Args:
        predictions: at least one.
        labels: of the model that answered.
        top_k: classes to name.
        independent: share of the frames that tell something new, above 0 to 1; neighbouring frames are nearly one
            image, and 1 makes their answer too sure. It changes confidence, never the label.

    Raises:
        ValueError: no predictions, errors among them, another number of classes, or no class to name.
    """
    if not predictions:
        raise ValueError("a track needs at least one prediction")
    for each in predictions:
        if not isinstance(each, Prediction):
            raise ValueError(
                f"a track takes predictions, got {each!r}; leave out what could not be read"
            )
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if not 0 < independent <= 1:
        raise ValueError(f"independent must be above 0 and at most 1, got {independent}")
    if len(predictions[0].logits) != labels.num_classes:
        raise ValueError(
            f"the predictions have {len(predictions[0].logits)} classes, the labels {labels.num_classes}"
        )
    counted = [prediction for prediction in predictions if not prediction.rejected]
    logits = np.stack([prediction.logits for prediction in counted or predictions])
    scaled = labels.calibration.apply(logits) if labels.calibration else logits
    # Never less than one frame's worth, or a track of one frame would be less sure than that frame.
    share = max(independent, 1 / len(logits))
    probabilities = np.exp(log_softmax(log_softmax(scaled).sum(axis=0) * share))
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    ranked = tuple((labels.classes[index], float(probabilities[index])) for index in order)
    label, confidence = ranked[0]
    rejected = not counted or (
        labels.reject is not None and labels.reject.rejects(label, confidence)
    )
    return TrackPrediction(label, confidence, ranked, len(predictions), len(counted), rejected)
