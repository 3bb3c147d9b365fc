"""Crops of detector boxes from a frame."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cls_export.contract.decoding import validate_array
from cls_export.contract.errors import ImageError


def crop_boxes(
    frame: NDArray[np.uint8], boxes: ArrayLike, margin: float = 0.0
) -> list[NDArray[np.uint8] | ImageError]:
    """Crop boxes from a frame. Invalid boxes give an `ImageError` instead of a crop.

    Args:
        frame: uint8 [height, width, 3].
        boxes: [M, 4]: left, top, right, bottom in pixels from the upper left corner. Fractions are
            rounded outward to whole pixels, and boxes are clipped to the frame.
        margin: Added on each side before rounding, as a share of the width and height of the box.

    Returns:
        M views of the frame, uint8 [box height, box width, 3].

    Raises:
        ImageError: The frame is an array of another shape or dtype.
        ValueError: The boxes are not [M, 4], or the margin is negative.
    """
    try:
        validate_array(frame)
    except ImageError as error:
        raise ImageError(f"the frame: {error}") from error
    if not margin >= 0:
        raise ValueError(f"margin must be at least 0, got {margin}")

    corners = _validate_boxes(boxes)
    return [_crop(frame, index, box, margin) for index, box in enumerate(corners)]


def _validate_boxes(boxes: ArrayLike) -> NDArray[np.float64]:
    expected = "boxes must be numbers [M, 4]: left, top, right, bottom"
    try:
        corners = np.asarray(boxes, np.float64)
    except (TypeError, ValueError) as error:  # ragged lists, or text
        raise ValueError(f"{expected} ({error})") from error

    if corners.shape[:1] == (0,):
        return np.empty((0, 4))
    if corners.ndim != 2 or corners.shape[1] != 4:
        hint = ""
        if corners.shape == (4,):
            hint = "; for a single box, pass [box]"
        elif corners.ndim == 2 and corners.shape[1] > 4:
            hint = "; to drop the columns after the corners, pass boxes[:, :4]"
        raise ValueError(f"{expected}; got an array of shape {corners.shape}{hint}")
    return corners


def _crop(
    frame: NDArray[np.uint8], index: int, box: NDArray[np.float64], margin: float
) -> NDArray[np.uint8] | ImageError:
    frame_height, frame_width = frame.shape[:2]
    left, top, right, bottom = box.tolist()
    name = f"box {index} ({left:g}, {top:g}, {right:g}, {bottom:g})"
    if not np.isfinite(box).all():
        return ImageError(f"{name}: the corners are not finite numbers")

    width = right - left
    height = bottom - top
    if width <= 0 or height <= 0:
        return ImageError(
            f"{name} is empty; expected left, top, right, bottom with left < right and top < bottom"
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
