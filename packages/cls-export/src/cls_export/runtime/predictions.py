"""What a logit vector means: label, calibrated confidence, rejected or not."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cls_export.contract.calibration import softmax
from cls_export.contract.labels_mapping import LabelsMapping


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image.

    Attributes:
        label: name of the class with the largest logit, which is what training, verify and every accuracy count.
        confidence: its probability, 0-1; calibrated where the labels mapping says how, else the softmax.
        top_k: the classes with the largest logits and their probabilities, best first. A vector calibration may give a
            later one more than an earlier; it changes how sure an answer is, and not which it is.
        rejected: whether this is no answer: its confidence is below the class's threshold, or no number.
        logits: float32 [C], as the graph gave them, in index order. They do not count where two answers are compared.
    """

    label: str
    confidence: float
    top_k: tuple[tuple[str, float], ...]
    rejected: bool
    logits: NDArray[np.float32] = field(compare=False)


def interpret(logits: NDArray[np.float32], labels: LabelsMapping, top_k: int) -> list[Prediction]:
    """Turn logits [N, C] into answers."""
    scaled = labels.calibration.apply(logits) if labels.calibration else logits
    probabilities = softmax(scaled)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
    names, reject = labels.idx_to_class, labels.reject
    predictions = []
    for row, (places, of_classes) in enumerate(zip(order.tolist(), probabilities, strict=True)):
        ranked = tuple((names[str(place)], float(of_classes[place])) for place in places)
        label, confidence = ranked[0]
        rejected = math.isnan(confidence) or (
            reject is not None and reject.rejects(label, confidence)
        )
        predictions.append(Prediction(label, confidence, ranked, rejected, logits[row]))
    return predictions
