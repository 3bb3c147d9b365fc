from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cls_export import Classifier, ImageError
from cls_export.runtime.boxes import crop_boxes

HEIGHT, WIDTH = 40, 60


@pytest.fixture
def frame() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def only(crops: list[Any]) -> NDArray[np.uint8]:
    (crop,) = crops
    assert not isinstance(crop, ImageError), crop
    return np.asarray(crop)


def test_box_is_cropped_between_its_corners(frame: NDArray[np.uint8]) -> None:
    assert np.array_equal(only(crop_boxes(frame, [[10, 5, 30, 25]])), frame[5:25, 10:30])


def test_fractions_are_rounded_outward(frame: NDArray[np.uint8]) -> None:
    assert np.array_equal(only(crop_boxes(frame, [[10.7, 5.2, 29.1, 24.01]])), frame[5:25, 10:30])


def test_margin_is_added_and_clipped_at_border(frame: NDArray[np.uint8]) -> None:
    assert np.array_equal(
        only(crop_boxes(frame, [[20, 10, 30, 30]], margin=0.1)), frame[8:32, 19:31]
    )
    assert np.array_equal(only(crop_boxes(frame, [[0, 0, 50, 40]], margin=0.5)), frame)


@given(
    left=st.floats(-100, 100),
    top=st.floats(-100, 100),
    width=st.floats(0.01, 200),
    height=st.floats(0.01, 200),
    margin=st.floats(0, 2),
)
def test_any_box_gives_view_of_frame_or_error(
    left: float, top: float, width: float, height: float, margin: float
) -> None:
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    box = (left, top, left + width, top + height)
    (crop,) = crop_boxes(frame, [box], margin)
    if min(box) >= -0.5 and max(box) <= 1.5:
        assert "is normalized to 0-1" in str(crop)
    elif isinstance(crop, ImageError):
        assert "outside the frame of 60 x 40 px" in str(crop)
        grown = (
            left - width * margin,
            top - height * margin,
            left + width * (1 + margin),
            top + height * (1 + margin),
        )
        assert grown[0] >= WIDTH or grown[1] >= HEIGHT or grown[2] <= 0 or grown[3] <= 0
    else:
        assert crop.size > 0
        assert np.shares_memory(crop, frame)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (
            [5, 5, 5, 9],
            r"box 1 \(5, 5, 5, 9\) is empty; expected left, top, right, bottom with left < right",
        ),
        ([9, 5, 5, 9], "box 1 .* is empty"),
        ([0.2, 0.2, 0.5, 0.5], "box 1 .* is normalized"),
        ([5, 5, float("inf"), 9], "box 1 .* the corners are not finite numbers"),
        ([70, 5, 90, 9], r"box 1 \(70, 5, 90, 9\) is outside the frame of 60 x 40 px"),
        ([float("nan"), 5, 9, 9], "box 1 .* the corners are not finite numbers"),
    ],
)
def test_invalid_box_is_named_and_others_are_classified(
    frame: NDArray[np.uint8], exported: Path, box: list[float], message: str
) -> None:
    boxes = [[0, 0, 20, 30], box, [10, 10, 40, 40]]
    classifier = Classifier(exported)
    with pytest.raises(ImageError, match=message):
        classifier.predict_boxes(frame, boxes)
    first, wrong, last = classifier.predict_boxes(frame, boxes, on_error="return")
    assert isinstance(wrong, ImageError)
    crops = classifier.predict([frame[0:30, 0:20], frame[10:40, 10:40]])
    for prediction, crop in zip((first, last), crops, strict=True):
        assert not isinstance(prediction, ImageError)
        assert np.array_equal(prediction.logits, crop.logits)


def test_no_boxes_give_no_predictions(frame: NDArray[np.uint8], exported: Path) -> None:
    assert Classifier(exported).predict_boxes(frame, []) == []
    assert Classifier(exported).predict_boxes(frame, np.empty((0, 4))) == []


@pytest.mark.parametrize(
    "box",
    [
        [0.1, 0.2, 0.4, 0.6],
        [0.0, 0.0, 1.0, 1.0],
        [-0.02, 0.0, 1.01, 0.7],
        [0.5, 0.5, 0.2, 0.3],  # center, width, height
        np.float32([0.1, 0.2, 0.4, 0.6]),
        np.float16([0.1, 0.2, 0.4, 0.6]),
        [0, 0, 0.5, 1],
    ],
)
def test_normalized_box_is_refused_with_conversion(
    frame: NDArray[np.uint8], exported: Path, box: Any
) -> None:
    message = (
        "is normalized to 0-1, expected pixels; multiply left and right by the width of the frame, "
        "60, and top and bottom by its height, 40"
    )
    with pytest.raises(ImageError, match=message):
        Classifier(exported).predict_boxes(frame, [box])
    (returned,) = Classifier(exported).predict_boxes(frame, [box], on_error="return")
    assert isinstance(returned, ImageError)


@pytest.mark.parametrize("dtype", [int, np.uint8, np.int16, np.uint64])
def test_box_of_one_pixel_in_the_corner_is_legal_as_integers(
    frame: NDArray[np.uint8], dtype: Any
) -> None:
    boxes = np.array([[0, 0, 1, 1]], dtype)
    assert np.array_equal(only(crop_boxes(frame, boxes)), frame[:1, :1])
    assert np.array_equal(only(crop_boxes(frame, boxes.tolist())), frame[:1, :1])


@pytest.mark.parametrize("box", [[1.0, 1.0, 2.0, 2.0], [59.2, 39.1, 59.9, 39.7], [-9, -9, 1, 1.2]])
def test_small_boxes_in_pixels_stay_legal(frame: NDArray[np.uint8], box: list[float]) -> None:
    assert only(crop_boxes(frame, [box])).size > 0


@pytest.mark.parametrize("box", [[30, 20, 10, 15], [30, 5, 12, 30], [5, 30, 20, 9]])
def test_box_of_corner_and_size_gets_hint(frame: NDArray[np.uint8], box: list[int]) -> None:
    (error,) = crop_boxes(frame, [box])
    assert "From left, top, width, height: add left and top to the last two" in str(error)


@pytest.mark.parametrize(
    "box",
    [[0, 0, 10**30, 10**30], [-(2**63), -(2**63), 2**63 - 1, 2**63 - 1], [-1e308, 0, 1e308, 40]],
)
def test_huge_box_is_clipped_to_frame(frame: NDArray[np.uint8], box: list[float]) -> None:
    assert np.array_equal(only(crop_boxes(frame, [box])), frame)


def test_unsigned_boxes_do_not_wrap_around(frame: NDArray[np.uint8]) -> None:
    boxes = np.array([[10, 5, 60, 40]], np.uint8)
    assert np.array_equal(only(crop_boxes(frame, boxes, margin=9.0)), frame)


@pytest.mark.parametrize("margin", [float("inf"), float("nan")])
def test_infinite_margin_is_refused(frame: NDArray[np.uint8], margin: float) -> None:
    with pytest.raises(ValueError, match="margin must be at least 0 and finite"):
        crop_boxes(frame, [[1, 2, 3, 4]], margin=margin)


def test_negative_margin_is_refused(frame: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="margin must be at least 0"):
        crop_boxes(frame, [[1, 2, 3, 4]], margin=-0.1)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([0, 0, 4, 4], r"got an array of shape \(4,\); for a single box, pass \[box\]"),
        (
            [[0, 0, 4, 4, 0.9]],
            r"got an array of shape \(1, 5\); .* pass boxes\[:, :4\]",
        ),
        ([["a", "b", "c", "d"]], "got dtype <U1"),
        ([["1", "2", "3", "4"]], "got dtype <U1"),
        ([[b"1", b"2", b"3", b"4"]], "got dtype |S1"),
        ([[True, True, False, True]], "got dtype bool"),
        ([[1j, 2, 3, 4]], "got dtype complex128"),
        ([[1, 2, 3, None]], "got None"),
        ([[1, 2, 3, 10**400]], "int too large to convert to float"),
        (np.zeros((4, 9)), r"from one column for each box: boxes\.T"),
        (np.zeros((1, 9, 4)), r"pass boxes\[0\]"),
        (np.zeros((2, 9, 4)), r"got an array of shape \(2, 9, 4\)"),
        ({"left": 1}, r"got an array of shape \(\)"),
        (iter([[1, 2, 3, 4]]), r"got an array of shape \(\)"),
        ([[1, 2, 3], [1, 2, 3, 4]], "inhomogeneous"),
        (None, r"got an array of shape \(\)"),
    ],
)
def test_malformed_boxes_are_refused_with_hint(
    frame: NDArray[np.uint8], boxes: Any, message: str
) -> None:
    with pytest.raises(
        ValueError, match=r"boxes must be numbers \[M, 4\]: left, top, right, bottom.*" + message
    ):
        crop_boxes(frame, boxes)


@pytest.mark.parametrize("on_error", ["raise", "return"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda frame: frame[..., 0],
            r"the frame: got an array of shape \(40, 60\) .* from gray levels",
        ),
        (lambda frame: frame / 255, "the frame: got an array .* from levels of 0 to 1"),
        (
            lambda frame: np.dstack([frame, frame])[..., :4],
            "the frame: got an array .* without alpha",
        ),
        (lambda frame: "frame.png", "the frame: got a str; expected an array"),
        (lambda frame: None, "the frame: got a NoneType; .* cv2.imread returns None"),
    ],
)
def test_malformed_frame_is_refused_with_hint(
    frame: NDArray[np.uint8], exported: Path, on_error: Any, change: Any, message: str
) -> None:
    classifier, boxes_of_frames = Classifier(exported), ([[0, 0, 9, 9]], [])
    for boxes in boxes_of_frames:
        with pytest.raises(ImageError, match=message):
            classifier.predict_boxes(change(frame), boxes, on_error=on_error)
