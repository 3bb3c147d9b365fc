"""Reads the numbers of tracked players in a clip."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from cls_export import Classifier, Prediction, TrackPrediction

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""


def read_numbers(
    frames: Iterable[NDArray[np.uint8]], boxes: Iterable[Mapping[int, Box]], classifier: Classifier
) -> dict[int, TrackPrediction]:
    """Answer for each track of a clip.

    Args:
        frames: uint8 [height, width, 3] in the order of OpenCV's channels.
        boxes: of each frame, by track; a box outside the frame is passed over.
        classifier: of jersey numbers.
    """
    seen: dict[int, list[Prediction]] = defaultdict(list)
    for frame, of_tracks in zip(frames, boxes, strict=True):
        answers = classifier.predict_boxes(
            frame, list(of_tracks.values()), color="BGR", bad="return"
        )
        for track, answer in zip(of_tracks, answers, strict=True):
            if isinstance(answer, Prediction):
                seen[track].append(answer)
    return {
        track: classifier.aggregate(answers, independent=0.5) for track, answers in seen.items()
    }
