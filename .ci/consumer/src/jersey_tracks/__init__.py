"""Read the jersey numbers of tracked players in a clip."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from cls_export import Classifier, Prediction, TrackPrediction

Box = tuple[float, float, float, float]
"""Left, top, right, and bottom in pixels."""


def read_numbers(
    frames: Iterable[NDArray[np.uint8]], boxes: Iterable[Mapping[int, Box]], classifier: Classifier
) -> dict[int, TrackPrediction]:
    """Return one prediction per track of a clip.

    Args:
        frames: uint8 [height, width, 3] in B, G, R order, as OpenCV reads them.
        boxes: For each frame, the box of each track. Boxes outside the frame are skipped.
        classifier: A classifier of jersey numbers.
    """
    predictions: dict[int, list[Prediction]] = defaultdict(list)
    for frame, frame_boxes in zip(frames, boxes, strict=True):
        results = classifier.predict_boxes(
            frame, list(frame_boxes.values()), color="BGR", on_error="return"
        )
        for track, result in zip(frame_boxes, results, strict=True):
            if isinstance(result, Prediction):
                predictions[track].append(result)

    numbers = {}
    for track, track_predictions in predictions.items():
        numbers[track] = classifier.aggregate(track_predictions, independent_fraction=0.5)
    return numbers
