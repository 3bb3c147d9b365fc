"""Convert logits to labels with calibrated confidence."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cls_export.contract.calibration import softmax
from cls_export.contract.labels_mapping import LabelsMapping


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        label: Class with the largest logit, as in training and `verify`.
        confidence: Probability of the label, 0-1, calibrated if the labels mapping has a
            calibration.
        top_k: Classes with the largest logits and their probabilities, largest logit first. A
            vector calibration may give a later class more probability than an earlier one: it
            changes the confidence, never the order.
        rejected: Whether the confidence is below the threshold of the class, or not a number.
        logits: float32 [C], the output of the graph, in index order. Ignored by `==`.
    """

    label: str
    confidence: float
    top_k: tuple[tuple[str, float], ...]
    rejected: bool
    logits: NDArray[np.float32] = field(compare=False)


def interpret_logits(
    logits: NDArray[np.float32], labels: LabelsMapping, top_k: int
) -> list[Prediction]:
    """Return the prediction for each row of logits [N, C]."""
    scaled = labels.calibration.apply(logits) if labels.calibration else logits
    probabilities = softmax(scaled)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :top_k].tolist()

    predictions = []
    for row, indices in enumerate(best):
        ranked = []
        for index in indices:
            name = labels.idx_to_class[str(index)]
            ranked.append((name, float(probabilities[row, index])))

        label, confidence = ranked[0]
        rejected = math.isnan(confidence)
        if labels.reject is not None and labels.reject.rejects(label, confidence):
            rejected = True
        predictions.append(Prediction(label, confidence, tuple(ranked), rejected, logits[row]))
    return predictions
