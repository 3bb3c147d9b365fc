"""A reader may reuse the buffer of its images (row B2)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cls_export import Classifier

from_frames = Callable[[NDArray[np.uint8]], Iterator[Any]]


def reuse_array(frames: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    buffer = np.empty_like(frames[0])
    for frame in frames:
        buffer[...] = frame
        yield buffer
    buffer[...] = 0


def reuse_view(frames: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    memory = bytearray(frames[0].nbytes)
    for frame in frames:
        memory[:] = frame.tobytes()
        yield np.frombuffer(memory, np.uint8).reshape(frame.shape)
    memory[:] = bytes(len(memory))


def reuse_pillow_image(frames: NDArray[np.uint8]) -> Iterator[Image.Image]:
    image = Image.new("RGB", (frames.shape[2], frames.shape[1]))
    for frame in frames:
        image.paste(Image.fromarray(frame))
        yield image
    image.paste((0, 0, 0), (0, 0, *image.size))


def encode_ppm(frame: NDArray[np.uint8]) -> bytes:
    return b"P6 %d %d 255\n" % (frame.shape[1], frame.shape[0]) + frame.tobytes()


def reuse_file_bytes(kind: type) -> from_frames:
    def generate(frames: NDArray[np.uint8]) -> Iterator[Any]:
        memory = bytearray(encode_ppm(frames[0]))
        for frame in frames:
            memory[:] = encode_ppm(frame)
            yield kind(memory) if kind is memoryview else memory
        memory[:] = bytes(len(memory))

    return generate


def reuse_path(folder: Path) -> from_frames:
    def generate(frames: NDArray[np.uint8]) -> Iterator[Path]:
        path = folder / "frame.png"
        for frame in frames:
            Image.fromarray(frame).save(path)
            yield path
        path.unlink()

    return generate


@pytest.fixture
def frames() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (8, 12, 10, 3), dtype=np.uint8)


@pytest.fixture(params=["array", "view", "Pillow image", "bytearray", "memoryview", "path"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> from_frames:
    readers: dict[str, from_frames] = {
        "array": reuse_array,
        "view": reuse_view,
        "Pillow image": reuse_pillow_image,
        "bytearray": reuse_file_bytes(bytearray),
        "memoryview": reuse_file_bytes(memoryview),
        "path": reuse_path(tmp_path),
    }
    return readers[request.param]


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_pixels_are_taken_as_each_image_is_drawn(
    exported: Path, frames: NDArray[np.uint8], reader: from_frames, batch_size: int
) -> None:
    classifier = Classifier(exported, batch_size=batch_size)
    expected = classifier.logits(list(frames))
    assert len({row.tobytes() for row in expected}) == len(frames)

    streamed = np.stack([prediction.logits for prediction in classifier.stream(reader(frames))])
    predicted = np.stack([prediction.logits for prediction in classifier.predict(reader(frames))])
    returned = classifier.stream(reader(frames), on_error="return")

    assert np.array_equal(streamed, expected)
    assert np.array_equal(predicted, expected)
    assert np.array_equal(classifier.logits(reader(frames)), expected)
    for prediction, row in zip(returned, expected, strict=True):
        assert np.array_equal(prediction.logits, row)  # type: ignore[union-attr]


def test_reused_bgr_frame_is_taken_as_it_is_drawn(
    exported: Path, frames: NDArray[np.uint8]
) -> None:
    classifier = Classifier(exported)
    predictions = list(classifier.stream(reuse_array(frames[..., ::-1]), color="BGR"))
    for prediction, row in zip(predictions, classifier.logits(list(frames)), strict=True):
        assert np.array_equal(prediction.logits, row)


def test_predictions_do_not_change_with_the_frame_of_boxes(
    exported: Path, frames: NDArray[np.uint8]
) -> None:
    classifier = Classifier(exported)
    buffer = frames[0].copy()
    boxes = np.array([[0, 0, 10, 12], [2, 2, 9, 9]])
    results = classifier.predict_boxes(buffer, boxes)
    kept = [prediction.logits.copy() for prediction in results]
    buffer[...] = 0
    boxes[...] = 0
    classifier.predict_boxes(frames[1], [[0, 0, 10, 12]])
    for prediction, logits in zip(results, kept, strict=True):
        assert np.array_equal(prediction.logits, logits)
