"""One prediction for all frames of a track."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cls_export.contract.calibration import log_softmax
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.runtime.arguments import check_count
from cls_export.runtime.predictions import Prediction


@dataclass(frozen=True, slots=True)
class TrackPrediction:
    """The prediction for a track.

    Attributes:
        label: Class with the largest sum of calibrated log-probabilities over accepted frames.
        confidence: Probability of the label, 0-1: the softmax of these sums.
        top_k: The most probable classes and their probabilities, best first.
        frames: Number of frames.
        accepted_frames: Number of frames that were not rejected.
        rejected: Whether all frames were rejected, or the confidence is below the threshold of the
            class.
    """

    label: str
    confidence: float
    top_k: tuple[tuple[str, float], ...]
    frames: int
    accepted_frames: int
    rejected: bool


def aggregate_predictions(
    predictions: Sequence[Prediction],
    labels: LabelsMapping,
    *,
    top_k: int = 5,
    independent_fraction: float = 1.0,
) -> TrackPrediction:
    """Combine the predictions of a track: sum log-probabilities, as for independent frames.

    Rejected frames are left out. If all frames are rejected, all are summed and the result is
    rejected.

    Args:
        predictions: At least one.
        labels: The labels mapping of the model.
        top_k: Number of classes in the result.
        independent_fraction: Share of frames with new information, above 0 and at most 1. With 1,
            similar neighboring frames make the result overconfident. It changes the confidence,
            never the label.

    Raises:
        ValueError: No predictions, an error among them, another number of classes than in the
            mapping, or an argument out of range.
    """
    _check_arguments(predictions, labels, top_k, independent_fraction)

    accepted = [prediction for prediction in predictions if not prediction.rejected]
    logits = np.stack([prediction.logits for prediction in accepted or predictions])
    scaled = labels.calibration.apply(logits) if labels.calibration else logits

    # A track never counts less than one frame, so one frame keeps its own confidence.
    fraction = max(independent_fraction, 1 / len(logits))
    sums = log_softmax(scaled).sum(axis=0)
    probabilities = np.exp(log_softmax(sums * fraction))

    order = np.argsort(-probabilities, kind="stable")[:top_k]
    ranked = tuple((labels.classes[index], float(probabilities[index])) for index in order)

    label, confidence = ranked[0]
    rejected = not accepted
    if labels.reject is not None and labels.reject.rejects(label, confidence):
        rejected = True
    return TrackPrediction(
        label=label,
        confidence=confidence,
        top_k=ranked,
        frames=len(predictions),
        accepted_frames=len(accepted),
        rejected=rejected,
    )


def _check_arguments(
    predictions: Sequence[Prediction], labels: LabelsMapping, top_k: int, fraction: float
) -> None:
    if not predictions:
        raise ValueError("a track needs at least one prediction, got none")
    for prediction in predictions:
        if not isinstance(prediction, Prediction):
            raise ValueError(
                f"a track takes predictions, got {prediction!r}; leave out images with errors"
            )
    check_count("top_k", top_k)
    if not 0 < fraction <= 1:
        raise ValueError(f"independent_fraction must be above 0 and at most 1, got {fraction}")
    classes = len(predictions[0].logits)
    if classes != labels.num_classes:
        raise ValueError(
            f"the predictions have {classes} classes, the labels mapping has {labels.num_classes}"
        )
