"""Tests with a real bundle (CLS_BUNDLE) and the data that it was validated on (CLS_DATA)."""

import importlib.util
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from jersey_tracks import Box, read_numbers
from numpy.typing import NDArray
from PIL import Image

from cls_export import Classifier, verify_bundle

BUNDLE = Path(os.environ["CLS_BUNDLE"])
DATA = Path(os.environ["CLS_DATA"])
HEIGHT, WIDTH, FRAMES = 360, 640, 8
OUTSIDE_TRACK = 99
OUTSIDE_BOX = (WIDTH + 5, 0, WIDTH + 30, 40)


class Clip(NamedTuple):
    frames: list[NDArray[np.uint8]]
    boxes: list[dict[int, Box]]
    crops: dict[int, list[Path]]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(BUNDLE)


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Three players walk to the right; each shows validation crops of one number."""
    crops_by_label: dict[str, list[Path]] = {}
    for file in sorted(DATA.glob("valid/**/*.jsonl")):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            crops_by_label.setdefault(row["suffix"], []).append(file.parent / row["image"])
    most_frequent = sorted(crops_by_label.values(), key=len, reverse=True)[:3]
    crops = {track: paths[:FRAMES] for track, paths in enumerate(most_frequent)}

    frames = []
    boxes = []
    for index in range(FRAMES):
        frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        frame_boxes: dict[int, Box] = {OUTSIDE_TRACK: OUTSIDE_BOX}
        for track, paths in crops.items():
            pixels = np.asarray(Image.open(paths[index]).convert("RGB"))
            height, width = pixels.shape[:2]
            left = 20 + 30 * index
            top = 10 + 110 * track
            frame[top : top + height, left : left + width] = pixels[..., ::-1]
            frame_boxes[track] = (left, top, left + width, top + height)
        frames.append(frame)
        boxes.append(frame_boxes)
    return Clip(frames, boxes, crops)


def test_environment_has_no_pytorch() -> None:
    assert importlib.util.find_spec("torch") is None


def test_bundle_verifies() -> None:
    assert verify_bundle(BUNDLE).passed


def test_box_of_frame_gives_logits_of_its_file(classifier: Classifier, clip: Clip) -> None:
    for index, (frame, boxes) in enumerate(zip(clip.frames, clip.boxes, strict=True)):
        for track, paths in clip.crops.items():
            (prediction,) = classifier.predict_boxes(frame, [boxes[track]], color="BGR")
            (expected,) = classifier.predict([paths[index]])
            assert np.abs(prediction.logits - expected.logits).max() < 1e-4


def test_track_prediction_sums_log_probabilities_of_frames(
    classifier: Classifier, clip: Clip
) -> None:
    numbers = read_numbers(clip.frames, clip.boxes, classifier)
    assert set(numbers) == set(clip.crops)
    for track, paths in clip.crops.items():
        logits = classifier.logits(paths)
        calibration = classifier.labels.calibration
        scores = calibration.apply(logits) if calibration else logits
        shifted = scores - scores.max(axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        best = int(log_probabilities.sum(axis=0).argmax())
        assert numbers[track].frames == FRAMES
        assert numbers[track].label == classifier.labels.classes[best]
        assert 0 < numbers[track].confidence <= 1


def test_damaged_frame_does_not_change_confident_numbers(
    classifier: Classifier, clip: Clip
) -> None:
    before = read_numbers(clip.frames, clip.boxes, classifier)
    damaged = [np.full_like(clip.frames[0], 90), *clip.frames[1:]]
    after = read_numbers(damaged, clip.boxes, classifier)
    confident = [track for track, number in before.items() if number.confidence > 0.99]
    assert confident
    assert all(after[track].label == before[track].label for track in confident)
