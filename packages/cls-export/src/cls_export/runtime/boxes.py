"""Boxes on a frame, such as a detector gives them, and the crops that they cut."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cls_export.contract.errors import ImageError
from cls_export.contract.preprocessing import checked_array


def cut(
    frame: NDArray[np.uint8], boxes: ArrayLike, margin: float = 0.0
) -> list[NDArray[np.uint8] | ImageError]:
    """Cut boxes out of a frame; an error stands in the place of a box that has nothing of it.

    Args:
        frame: uint8 [height, width, 3].
        boxes: [M, 4], left, top, right and bottom in pixels, from the frame's upper left corner; fractions are widened
            to whole pixels, and what lies outside the frame is cut off.
        margin: added on each side before that, as a share of the box's width and height.

    Raises:
        ImageError: the frame is no such array.
        ValueError: boxes are not [M, 4], or the margin is below 0.
    """
    try:
        checked_array(frame)
    except ImageError as error:
        raise ImageError(f"the frame: {error}") from error
    if not margin >= 0:
        raise ValueError(f"margin must be 0 or more, got {margin}")
    corners = _corners(boxes)
    return [_crop(frame, number, box, margin) for number, box in enumerate(corners)]


def _corners(boxes: ArrayLike) -> NDArray[np.float64]:
    expected = "boxes must be numbers [M, 4]: left, top, right, bottom"
    try:
        corners = np.asarray(boxes, np.float64)
    except (TypeError, ValueError) as error:  # ragged lists and words
        raise ValueError(f"{expected} ({error})") from error
    if corners.shape[:1] == (0,):
        return np.empty((0, 4))
    if corners.ndim != 2 or corners.shape[1] != 4:
        hint = ""
        if corners.shape == (4,):
            hint = "; for one box, pass a list: [box]"
        elif corners.ndim == 2 and corners.shape[1] > 4:
            hint = "; without what follows the corners: boxes[:, :4]"
        raise ValueError(f"{expected}; got the shape {corners.shape}{hint}")
    return corners


def _crop(
    frame: NDArray[np.uint8], number: int, box: NDArray[np.float64], margin: float
) -> NDArray[np.uint8] | ImageError:
    said = f"box {number} ({', '.join(f'{value:g}' for value in box)})"
    if not np.isfinite(box).all():
        return ImageError(f"{said}: its corners are not finite numbers")
    width, height = box[2] - box[0], box[3] - box[1]
    if width <= 0 or height <= 0:
        return ImageError(
            f"{said} is empty; expected left, top, right, bottom with left < right and top < bottom"
        )
    wider = box + np.array([-width, -height, width, height]) * margin
    left, top = np.floor(wider[:2]).clip(0, None)
    right, bottom = np.minimum(np.ceil(wider[2:]), _size(frame))
    if left >= right or top >= bottom:
        return ImageError(
            f"{said} lies outside the frame of {frame.shape[1]} x {frame.shape[0]} px"
        )
    return frame[int(top) : int(bottom), int(left) : int(right)]


def _size(frame: NDArray[Any]) -> Sequence[int]:
    return frame.shape[1], frame.shape[0]
