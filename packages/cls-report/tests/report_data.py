"""Random logits and predictions."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from cls_data import Predictions
from cls_export.contract.calibration import log_softmax
from cls_report import Clusters, EvaluatedPredictions, Run

MakeRun = Callable[..., Run]
"""Writes a run folder; see conftest.py."""

CLASSES = ("0", "00", "23", "7")


def make_logits(labels: np.ndarray, classes: int, seed: int, skill: float = 2.0) -> np.ndarray:
    """Draw logits float32 [N, C] that favor the label by `skill` standard deviations."""
    logits = np.random.default_rng(seed).standard_normal((len(labels), classes)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += skill
    return logits


def make_evaluated(
    images: int, seed: int, classes: int = 4, skill: float = 2.0
) -> EvaluatedPredictions:
    labels = np.random.default_rng([seed, 1]).integers(0, classes, images)
    logits = make_logits(labels, classes, seed, skill)
    return EvaluatedPredictions(
        labels=labels,
        predicted=logits.argmax(axis=1),
        log_probabilities=log_softmax(logits),
        classes=tuple(map(str, range(classes))),
        clusters=Clusters(np.arange(images), images),
    )


def make_predictions(images: int = 60, seed: int = 1, **changed: Any) -> Predictions:
    """Predict images that are the same for every seed."""
    labels = np.random.default_rng(0).integers(0, len(CLASSES), images)
    metadata = [json.dumps({"game": f"game {row % 3}", "blur": row / 7}) for row in range(images)]
    arrays: dict[str, Any] = {
        "ids": np.array([f"valid/{row:03}.png" for row in range(images)]),
        "labels": labels,
        "logits": make_logits(labels, len(CLASSES), seed),
        "classes": np.array(CLASSES),
        "groups": np.full(images, ""),
        "metadata": np.array(metadata),
        "sizes": np.array([[20 + row % 5, 30 + row % 20] for row in range(images)], np.int32),
    }
    return Predictions(**{**arrays, **changed})
