"""Crops of detector boxes from a frame."""

import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cls_export.contract.decoding import validate_array
from cls_export.contract.errors import ImageError

_EXPECTED = "boxes must be numbers [M, 4]: left, top, right, bottom"

_NORMALIZED_LOW = -0.5
_NORMALIZED_HIGH = 1.5
"""Range of corners in shares of the frame. Detectors overshoot 0 and 1 a little."""


def crop_boxes(
    frame: NDArray[np.uint8], boxes: ArrayLike, margin: float = 0.0
) -> list[NDArray[np.uint8] | ImageError]:
    """Crop boxes from a frame. Invalid boxes give an `ImageError` instead of a crop.

    Args:
        frame: uint8 [height, width, 3].
        boxes: [M, 4]: left, top, right, bottom in pixels from the upper left corner. Fractions are
            rounded outward to whole pixels, and boxes are clipped to the frame. Floats of about 0
            to 1 are invalid, because they are shares of the frame's width and height; a box of one
            pixel in that corner is valid as integers.
        margin: Added on each side before rounding, as a share of the width and height of the box.

    Returns:
        M views of the frame, uint8 [box height, box width, 3].

    Raises:
        ImageError: The frame is an array of another shape or dtype.
        ValueError: The boxes are not numbers [M, 4], or the margin is negative or infinite.
    """
    try:
        validate_array(frame)
    except ImageError as error:
        raise ImageError(f"the frame: {error}") from error
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be at least 0 and finite, got {margin}")

    corners, are_integers = _validate_boxes(boxes)
    crops = []
    for index, box in enumerate(corners):
        crops.append(_crop(frame, index, box, margin, may_be_shares=not are_integers))
    return crops


def _validate_boxes(boxes: ArrayLike) -> tuple[NDArray[np.float64], bool]:
    """Return the corners, and whether all of them were given as integers."""
    try:
        given = np.asarray(boxes)
    # ragged lists, or a tensor of another device or with a gradient
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{_EXPECTED} ({error})") from error

    if given.shape[:1] == (0,):
        return np.empty((0, 4)), True
    if given.ndim != 2 or given.shape[1] != 4:
        hint = _shape_hint(given)
        raise ValueError(f"{_EXPECTED}; got an array of shape {given.shape}{hint}")
    if given.dtype.kind not in "iufO":
        raise ValueError(f"{_EXPECTED}; got dtype {given.dtype}")
    if given.dtype.kind == "O":
        return _convert_objects(given)
    return given.astype(np.float64), given.dtype.kind in "iu"


def _shape_hint(given: NDArray[Any]) -> str:
    shape = given.shape
    if shape == (4,):
        return "; for a single box, pass [box]"
    if given.ndim == 2 and shape[1] > 4:
        if shape[0] == 4:
            return "; from one column for each box: boxes.T"
        return "; to drop the columns after the corners, pass boxes[:, :4]"
    if given.ndim == 3 and shape[0] == 1:
        return "; for the only frame of a batch, pass boxes[0]"
    return ""


def _convert_objects(given: NDArray[Any]) -> tuple[NDArray[np.float64], bool]:
    """Convert Python numbers, such as integers of more than 64 bits."""
    for value in given.flat:
        if not isinstance(value, numbers.Real):
            raise ValueError(f"{_EXPECTED}; got {value!r}")
    are_integers = all(isinstance(value, numbers.Integral) for value in given.flat)
    try:
        return given.astype(np.float64), are_integers
    except OverflowError as error:
        raise ValueError(f"{_EXPECTED} ({error})") from error


def _crop(
    frame: NDArray[np.uint8],
    index: int,
    box: NDArray[np.float64],
    margin: float,
    *,
    may_be_shares: bool,
) -> NDArray[np.uint8] | ImageError:
    frame_height, frame_width = frame.shape[:2]
    left, top, right, bottom = box.tolist()
    name = f"box {index} ({left:g}, {top:g}, {right:g}, {bottom:g})"
    if not np.isfinite(box).all():
        return ImageError(f"{name}: the corners are not finite numbers")

    if may_be_shares and min(box) >= _NORMALIZED_LOW and max(box) <= _NORMALIZED_HIGH:
        return ImageError(
            f"{name} is normalized to 0-1, expected pixels; multiply left and right by the width "
            f"of the frame, {frame_width}, and top and bottom by its height, {frame_height}. For "
            "one pixel in the corner of the frame, pass integers"
        )

    width = right - left
    height = bottom - top
    if width <= 0 or height <= 0:
        hint = ""
        if width < 0 or height < 0:
            hint = ". From left, top, width, height: add left and top to the last two"
        return ImageError(
            f"{name} is empty; expected left, top, right, bottom with left < right and "
            f"top < bottom{hint}"
        )

    first_column = _round_down(left - width * margin)
    first_row = _round_down(top - height * margin)
    end_column = _round_up(right + width * margin, frame_width)
    end_row = _round_up(bottom + height * margin, frame_height)
    if first_column >= end_column or first_row >= end_row:
        return ImageError(f"{name} is outside the frame of {frame_width} x {frame_height} px")
    return frame[first_row:end_row, first_column:end_column]


def _round_down(value: float) -> int:
    rounded = np.floor(value)
    return int(max(0.0, rounded))


def _round_up(value: float, limit: int) -> int:
    rounded = np.ceil(value)
    return int(min(limit, rounded))
