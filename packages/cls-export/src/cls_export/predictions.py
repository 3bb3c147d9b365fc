"""What a logit vector means: label, calibrated confidence, rejected or not."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cls_export.calibration import log_softmax
from cls_export.labels import LabelsMapping


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image.

    Attributes:
        label: name of the most probable class.
        confidence: its probability, 0-1; calibrated where the labels mapping says how, else the softmax.
        top_k: the most probable classes with their probabilities, best first.
        rejected: whether the confidence is below the class's threshold, so that this is no answer.
        logits: float32 [C], as the graph gave them, in index order.
    """

    label: str
    confidence: float
    top_k: tuple[tuple[str, float], ...]
    rejected: bool
    logits: NDArray[np.float32]


def interpret(logits: NDArray[np.float32], labels: LabelsMapping, top_k: int) -> list[Prediction]:
    """Turn logits [N, C] into answers."""
    scaled = labels.calibration.apply(logits) if labels.calibration else logits
    probabilities = np.exp(log_softmax(scaled))
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    classes, reject = labels.classes, labels.reject
    predictions = []
    for row, (places, of_classes) in enumerate(zip(order.tolist(), probabilities, strict=True)):
        ranked = tuple((classes[place], float(of_classes[place])) for place in places)
        label, confidence = ranked[0]
        rejected = reject is not None and reject.rejects(label, confidence)
        predictions.append(Prediction(label, confidence, ranked, rejected, logits[row]))
    return predictions
