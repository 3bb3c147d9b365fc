"""Needs a bundle and the data that it was validated on: CLS_BUNDLE and CLS_DATA name them."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
from jersey_tracks import Box, read_numbers
from numpy.typing import NDArray
from PIL import Image

from cls_export import Classifier, verify_bundle

BUNDLE, DATA = Path(os.environ["CLS_BUNDLE"]), Path(os.environ["CLS_DATA"])
HEIGHT, WIDTH, FRAMES = 360, 640, 8

Clip = tuple[list[NDArray[np.uint8]], list[dict[int, Box]], dict[int, list[Path]]]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(BUNDLE)


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A clip in which three players, each a number's validation crops in turn, walk to the right; and who is where."""
    crops: dict[str, list[Path]] = {}
    for file in sorted(DATA.glob("valid/**/*.jsonl")):
        for row in map(json.loads, file.read_text().splitlines()):
            crops.setdefault(row["suffix"], []).append(file.parent / row["image"])
    most = sorted(crops.values(), key=len, reverse=True)
    players = dict(enumerate(paths[:FRAMES] for paths in most[:3]))
    frames, boxes = [], []
    for number in range(FRAMES):
        frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        where: dict[int, Box] = {99: (WIDTH + 5, 0, WIDTH + 30, 40)}  # one who has left the picture
        for track, paths in players.items():
            pixels = np.asarray(Image.open(paths[number]).convert("RGB"))
            height, width = pixels.shape[:2]
            left, top = 20 + 30 * number, 10 + 110 * track
            frame[top : top + height, left : left + width] = pixels[..., ::-1]
            where[track] = (left, top, left + width, top + height)
        frames.append(frame)
        boxes.append(where)
    return frames, boxes, players


def test_there_is_no_pytorch_here() -> None:
    assert importlib.util.find_spec("torch") is None


def test_the_bundle_answers_as_it_did_in_training() -> None:
    assert verify_bundle(BUNDLE).passed


def test_a_box_on_a_frame_is_answered_as_the_file_that_it_shows(
    classifier: Classifier, clip: Clip
) -> None:
    frames, boxes, players = clip
    for number, (frame, where) in enumerate(zip(frames, boxes, strict=True)):
        for track, paths in players.items():
            (answer,) = classifier.predict_boxes(frame, [where[track]], color="BGR")
            (expected,) = classifier.predict([paths[number]])
            assert np.abs(answer.logits - expected.logits).max() < 1e-4


def test_each_track_has_one_answer_that_its_frames_agree_on(
    classifier: Classifier, clip: Clip
) -> None:
    frames, boxes, players = clip
    numbers = read_numbers(frames, boxes, classifier)
    assert set(numbers) == set(players)
    for track, paths in players.items():
        logits = classifier.logits(paths)
        calibration = classifier.labels.calibration
        scores = calibration.apply(logits) if calibration else logits
        shifted = scores - scores.max(axis=1, keepdims=True)
        likelihood = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        assert numbers[track].frames == FRAMES
        assert (
            numbers[track].label == classifier.labels.classes[int(likelihood.sum(axis=0).argmax())]
        )
        assert 0 < numbers[track].confidence <= 1


def test_one_spoilt_frame_changes_no_number(classifier: Classifier, clip: Clip) -> None:
    frames, boxes, _ = clip
    before = read_numbers(frames, boxes, classifier)
    spoilt = [np.full_like(frames[0], 90), *frames[1:]]
    after = read_numbers(spoilt, boxes, classifier)
    sure = [track for track, answer in before.items() if answer.confidence > 0.99]
    assert sure
    assert all(after[track].label == before[track].label for track in sure)
