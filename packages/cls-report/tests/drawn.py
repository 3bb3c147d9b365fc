"""Answers that are drawn, with a skill that is known."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from cls_data import Predictions
from cls_export.contract.calibration import log_softmax
from cls_report import Run
from cls_report.statistics.evaluated import Answers
from cls_report.statistics.intervals import Clusters

MakeRun = Callable[..., Run]
"""Leaves a run's folder; conftest.py has it."""

CLASSES = ("0", "00", "23", "7")


def drawn_logits(truth: np.ndarray, classes: int, seed: int, skill: float = 2.0) -> np.ndarray:
    """Draw logits float32 [N, C] that favour the truth by `skill` standard deviations."""
    logits = np.random.default_rng(seed).standard_normal((len(truth), classes)).astype(np.float32)
    logits[np.arange(len(truth)), truth] += skill
    return logits


def drawn_answers(images: int, seed: int, classes: int = 4, skill: float = 2.0) -> Answers:
    truth = np.random.default_rng([seed, 1]).integers(0, classes, images)
    logits = drawn_logits(truth, classes, seed, skill)
    clusters = Clusters(np.arange(images), images)
    return Answers(
        truth, logits.argmax(axis=1), log_softmax(logits), tuple(map(str, range(classes))), clusters
    )


def drawn_predictions(images: int = 60, seed: int = 1, **changed: Any) -> Predictions:
    """Predict images that are the same for every seed."""
    truth = np.random.default_rng(0).integers(0, len(CLASSES), images)
    arrays: dict[str, Any] = {
        "ids": np.array([f"valid/{row:03}.png" for row in range(images)]),
        "labels": truth,
        "logits": drawn_logits(truth, len(CLASSES), seed),
        "classes": np.array(CLASSES),
        "groups": np.full(images, ""),
        "metadata": np.array(
            [json.dumps({"game": f"game {row % 3}", "blur": row / 7}) for row in range(images)]
        ),
        "sizes": np.array([[20 + row % 5, 30 + row % 20] for row in range(images)], np.int32),
    }
    return Predictions(**{**arrays, **changed})
