"""Crop, zoom, rotation, shear, shift, perspective, and flips in one resampling pass."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from cls_data.augmentation.ops import (
    AugmentationOp,
    AugmentationStage,
    OpParameters,
    PositiveRange,
    Share,
    ShareRange,
    move_to_device,
)
from cls_data.augmentation.random_streams import ParamSampler, Values

_CORNERS = ((-1, -1), (1, -1), (1, 1), (-1, 1))
_MIN_CROP_AREA = 1e-4  # share of the image; an empty crop has no aspect ratio


class GeometricTransform(AugmentationOp):
    """Random geometric transform.

    Values are drawn uniformly; zoom and crop_aspect uniformly on a log scale.

    Attributes:
        rotation: Largest angle in degrees, in both directions.
        translation: Largest shift, as a share of the width and height.
        zoom: Minimum and maximum factor of the content's size.
        shear: Largest horizontal shear angle in degrees.
        perspective: Largest inward shift of a corner, as a share of half the width and height.
        crop_area: Minimum and maximum share of the image's area inside a crop; (1, 1) crops
            nothing.
        crop_aspect: Minimum and maximum ratio of a crop's aspect ratio to the image's.
        horizontal_flip: Probability of a horizontal flip. Off by default: a mirrored digit is a
            different symbol.
        vertical_flip: Probability of a vertical flip.
    """

    stage: ClassVar[AugmentationStage] = AugmentationStage.GEOMETRY

    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    translation: Share = 0.0
    zoom: PositiveRange = (1.0, 1.0)
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    perspective: Share = 0.0
    crop_area: ShareRange = (1.0, 1.0)
    crop_aspect: PositiveRange = (1.0, 1.0)
    horizontal_flip: Share = 0.0
    vertical_flip: Share = 0.0

    def draw(self, sampler: ParamSampler) -> OpParameters:
        """Draw the parameters of every change for each sample."""
        return {
            "degrees": sampler.symmetric(self.rotation),
            "shift_x": sampler.symmetric(self.translation),
            "shift_y": sampler.symmetric(self.translation),
            "zoom": sampler.log_uniform(*self.zoom),
            "shear_degrees": sampler.symmetric(self.shear),
            "mirrored": sampler.bernoulli(self.horizontal_flip),
            "upside_down": sampler.bernoulli(self.vertical_flip),
            "corners": sampler.uniform(0, self.perspective, (4, 2)),
            "crop_aspect": sampler.log_uniform(*self.crop_aspect),
            "crop_area": sampler.uniform(*self.crop_area),
            "crop_left": sampler.uniform(0, 1),
            "crop_top": sampler.uniform(0, 1),
        }

    def matrices(self, params: OpParameters, aspect: float) -> Values:
        """Return float32 [B, 3, 3] for `resample`."""
        matrices = affine_matrices(
            degrees=params["degrees"],
            shift_x=params["shift_x"],
            shift_y=params["shift_y"],
            zoom=params["zoom"],
            shear_degrees=params["shear_degrees"],
            mirrored=params["mirrored"],
            aspect=aspect,
        )

        matrices[params["upside_down"], 1] *= -1
        if self.perspective:
            matrices = perspective_matrices(params["corners"]) @ matrices

        if self.crop_area[0] < 1:
            stretch = np.sqrt(params["crop_aspect"])
            side = np.sqrt(np.maximum(params["crop_area"], _MIN_CROP_AREA))
            # A side longer than the image would be cut off and leave less than the drawn area.
            stretch = np.clip(stretch, side, 1 / side)
            crop = crop_matrices(
                side * stretch, side / stretch, params["crop_left"], params["crop_top"]
            )
            matrices = crop @ matrices
        return matrices

    def label_warnings(self) -> list[str]:
        """Return the settings that can turn one digit into another."""
        warnings = []
        if self.horizontal_flip:
            warnings.append(
                f"horizontal_flip={self.horizontal_flip}: a mirrored digit is a different symbol"
            )
        if self.vertical_flip:
            warnings.append(
                f"vertical_flip={self.vertical_flip}: an upside-down 2 can look like a 5"
            )
        if self.rotation > 45:
            warnings.append(
                f"rotation={self.rotation}: rotations over 45 degrees can turn a 6 into a 9 and a "
                "1 into a dash"
            )
        if self.crop_area[0] < 0.5:
            warnings.append(
                f'crop_area={self.crop_area}: crops below half of the image can turn "23" into "3"'
            )
        return warnings


def affine_matrices(
    *,
    degrees: Values,
    shift_x: Values,
    shift_y: Values,
    zoom: Values,
    shear_degrees: Values,
    mirrored: NDArray[np.bool_],
    aspect: float,
) -> Values:
    """Return float32 [B, 3, 3] that map output to input coordinates, both in -1..1.

    The content is mirrored, sheared, rotated counterclockwise by `degrees`, scaled by `zoom`, and
    moved by `shift` (shares of the width and height, to the right and down). All arguments except
    `aspect` (width divided by height) are [B]. The inverse is built directly, because resampling
    needs the source of each pixel.
    """
    angle = np.deg2rad(degrees)
    shear = np.tan(np.deg2rad(shear_degrees))

    cosine = np.cos(angle) / zoom
    sine = np.sin(angle) / zoom
    sign = np.where(mirrored, -1, 1)

    # Rows of (inverse shear)·(inverse rotation)/zoom in square pixels; y points down, so the signs
    # are swapped.
    a = sign * (cosine + shear * sine)
    b = sign * (-sine + shear * cosine) / aspect
    c = sine * aspect
    d = cosine

    x = -2 * shift_x
    y = -2 * shift_y
    rows: list[list[Values | int]] = [
        [a, b, a * x + b * y],
        [c, d, c * x + d * y],
        [0, 0, 1],
    ]
    return _stack_matrices(rows, len(degrees))


def crop_matrices(width: Values, height: Values, left: Values, top: Values) -> Values:
    """Return float32 [B, 3, 3] that enlarge a crop to the full image.

    All arguments are [B], 0-1: the crop's sides as shares of the image's sides, and its position
    between the left and the right edge, and between the top and the bottom edge.
    """
    x = (1 - width) * (2 * left - 1)
    y = (1 - height) * (2 * top - 1)
    rows: list[list[Values | int]] = [
        [width, 0, x],
        [0, height, y],
        [0, 0, 1],
    ]
    return _stack_matrices(rows, len(width))


def perspective_matrices(inwards: Values) -> Values:
    """Return float32 [B, 3, 3] that map the output's corners to points inside the input.

    Takes float32 [B, 4, 2], inward shifts in x and y of the upper left, upper right, lower right,
    and lower left corner, as a share of the distance to the center: 0 to 1.
    """
    count = len(inwards)
    corners = np.array(_CORNERS, np.float64)
    x, y = corners.T
    sources = corners * (1 - inwards)
    u = sources[:, :, 0]
    v = sources[:, :, 1]

    # u = (a x + b y + c) / (g x + h y + 1) and v likewise for four corners: eight equations.
    coordinates = np.stack([x, y, np.ones(4)], axis=1)

    equations = np.zeros((count, 8, 8))
    for_u = equations[:, :4]
    for_u[..., :3] = coordinates
    for_u[..., 6] = -u * x
    for_u[..., 7] = -u * y

    for_v = equations[:, 4:]
    for_v[..., 3:6] = coordinates
    for_v[..., 6] = -v * x
    for_v[..., 7] = -v * y

    targets = np.concatenate([u, v], axis=1)
    solution = np.linalg.solve(equations, targets[..., None])

    matrices = np.ones((count, 9), np.float32)
    matrices[:, :8] = solution[..., 0]
    return matrices.reshape(-1, 3, 3)


def resample(images: Tensor, matrices: Values) -> Tensor:
    """Resample float [B, 3, H, W] bilinearly; pixels beyond the border repeat the edge.

    The matrices [B, 3, 3] map output to input coordinates in -1..1.
    """
    height, width = images.shape[2:]
    coefficients = move_to_device(matrices, images)[:, :, :, None, None]
    x = _pixel_coordinates(width, images.device)
    y = _pixel_coordinates(height, images.device)[:, None]

    # Each coordinate is the sum of a row and a column: one pass instead of the three of a matrix
    # product with all pixel positions.
    grid = torch.empty(len(images), height, width, 2, device=images.device)
    for axis in (0, 1):
        row = coefficients[:, axis, 0] * x
        column = coefficients[:, axis, 1] * y + coefficients[:, axis, 2]
        torch.add(row, column, out=grid[..., axis])

    if matrices[:, 2, :2].any():
        row = coefficients[:, 2, 0] * x
        column = coefficients[:, 2, 1] * y + coefficients[:, 2, 2]
        depth = row + column
        for axis in (0, 1):
            grid[..., axis] /= depth

    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def _pixel_coordinates(length: int, device: torch.device) -> Tensor:
    """Return float32 [length], the centers of a line's pixels in -1..1."""
    pixels = torch.arange(length, device=device)
    centers = (pixels * 2 + 1) / length
    return centers - 1


def _stack_matrices(rows: Sequence[Sequence[Values | int]], count: int) -> Values:
    """Return float32 [count, 3, 3] from three rows of three entries, each [count] or a constant."""
    matrices = np.empty((count, 3, 3), np.float32)
    for i, row in enumerate(rows):
        for j, entry in enumerate(row):
            matrices[:, i, j] = entry
    return matrices
