"""Crop, zoom, rotation, shear, shift, perspective and mirroring as one resample."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from cls_data.augmentation.params import (
    AugmentationOp,
    ParamSampler,
    PositiveRange,
    Share,
    ShareRange,
    Values,
    on_device,
)

_SMALLEST_CROP = 1e-4
"""Share of the image's area; of nothing there is no aspect ratio."""


class Geometry(AugmentationOp):
    """How far images are moved. ParamSampler are even, those of factors on a logarithmic scale.

    Attributes:
        rotation: largest angle in degrees, to either side.
        translation: largest shift, as a share of the width and height.
        zoom: smallest and largest factor of the content's size.
        shear: largest horizontal shear angle in degrees.
        perspective: how far a corner may move inwards, as a share of half the width and height.
        crop_area: smallest and largest share of the image's area that a crop keeps; (1, 1) for no crops.
        crop_aspect: smallest and largest factor by which a crop's aspect ratio differs from the image's.
        horizontal_flip: share of the samples that are mirrored. Off by default: a mirrored digit is another sign.
        vertical_flip: share of the samples that are turned upside down, as in a mirror on the floor.
    """

    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    translation: Share = 0.0
    zoom: PositiveRange = (1.0, 1.0)
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    perspective: Share = 0.0
    crop_area: ShareRange = (1.0, 1.0)
    crop_aspect: PositiveRange = (1.0, 1.0)
    horizontal_flip: Share = 0.0
    vertical_flip: Share = 0.0

    def matrices(self, draws: ParamSampler, aspect: float) -> Values:
        """Draw float32 [B, 3, 3] for `resample`; `aspect` is the images' width over their height."""
        matrices = affine_matrices(
            degrees=draws.around_zero(self.rotation),
            shift_x=draws.around_zero(self.translation),
            shift_y=draws.around_zero(self.translation),
            zoom=draws.factor(*self.zoom),
            shear_degrees=draws.around_zero(self.shear),
            mirrored=draws.chance(self.horizontal_flip),
            aspect=aspect,
        )
        if self.vertical_flip:
            matrices[draws.chance(self.vertical_flip), 1] *= -1
        if self.perspective:
            matrices = perspective_matrices(draws.corners(self.perspective)) @ matrices
        if self.crop_area[0] < 1:
            stretch = np.sqrt(draws.factor(*self.crop_aspect))
            side = np.sqrt(np.maximum(draws.between(*self.crop_area), _SMALLEST_CROP))
            stretch = np.clip(
                stretch, side, 1 / side
            )  # a side cut off at the border would leave less than was asked
            crop = crop_matrices(
                side * stretch, side / stretch, draws.between(0, 1), draws.between(0, 1)
            )
            matrices = crop @ matrices
        return matrices

    def cautions(self) -> list[str]:
        """Say what would turn one digit-like class into another."""
        said = []
        if self.horizontal_flip:
            said.append(f"horizontal_flip={self.horizontal_flip}: a mirrored digit is another sign")
        if self.vertical_flip:
            said.append(f"vertical_flip={self.vertical_flip}: a 2 upside down is a 5")
        if self.rotation > 45:
            said.append(
                f"rotation={self.rotation}: a 6 turned by half is a 9, and a 1 on its side is a dash"
            )
        if self.crop_area[0] < 0.5:
            said.append(
                f'crop_area={self.crop_area}: a crop that keeps so little can turn "23" into "3"'
            )
        return said


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
    """Return float32 [B, 3, 3]: for each place in the output, the place in the input, both in -1..1.

    The content is mirrored, sheared, turned counter-clockwise by `degrees`, enlarged by `zoom` and moved by
    `shift` (shares of the width and height, to the right and down). All arguments but `aspect` (width over
    height) are [B]. The inverse is built directly, since a resample asks where each pixel comes from.
    """
    angle, shear = np.deg2rad(degrees), np.tan(np.deg2rad(shear_degrees))
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    sign = np.where(mirrored, -1, 1)
    # Rows of (inverse shear)·(inverse rotation)/zoom in square pixels; y points down, so the signs are swapped.
    a, b = sign * (cosine + shear * sine), sign * (-sine + shear * cosine) / aspect
    c, d = sine * aspect, cosine
    x, y = -2 * shift_x, -2 * shift_y
    return _matrices([[a, b, a * x + b * y], [c, d, c * x + d * y], [0, 0, 1]], len(degrees))


def crop_matrices(width: Values, height: Values, left: Values, top: Values) -> Values:
    """Return float32 [B, 3, 3] that show a part of the image in full.

    Width and height are [B] shares of the image's; left and top [B] place the part between the edges, 0 to 1.
    """
    x, y = (1 - width) * (2 * left - 1), (1 - height) * (2 * top - 1)
    return _matrices([[width, 0, x], [0, height, y], [0, 0, 1]], len(width))


def perspective_matrices(inwards: Values) -> Values:
    """Return float32 [B, 3, 3] that take the output's corners to places inside the input.

    Args:
        inwards: float32 [B, 4, 2], how far each corner (upper left, upper right, lower right, lower left) lies from
            the input's own, in x and in y, of the distance to the middle: 0 to 1.
    """
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    (x, y), (u, v) = corners.T, np.moveaxis(corners * (1 - inwards), 2, 0)
    # u = (a x + b y + c) / (g x + h y + 1) and v likewise, for four corners: eight equations.
    equations = np.zeros((len(inwards), 8, 8))
    equations[:, :4, :3] = equations[:, 4:, 3:6] = np.stack([x, y, np.ones(4)], axis=1)
    equations[:, :4, 6], equations[:, :4, 7] = -u * x, -u * y
    equations[:, 4:, 6], equations[:, 4:, 7] = -v * x, -v * y
    solved = np.linalg.solve(equations, np.concatenate([u, v], axis=1)[..., None])[..., 0]
    return (
        np.concatenate([solved, np.ones((len(inwards), 1))], axis=1)
        .reshape(-1, 3, 3)
        .astype(np.float32)
    )


def resample(images: Tensor, matrices: Values) -> Tensor:
    """Resample float [B, 3, H, W] once through `matrices` [B, 3, 3], bilinearly; edges repeat beyond the border."""
    height, width = images.shape[2:]
    moved = on_device(matrices, images)[:, :, :, None, None]
    x = (torch.arange(width, device=images.device) * 2 + 1) / width - 1
    y = ((torch.arange(height, device=images.device) * 2 + 1) / height - 1)[:, None]
    # A sum of a row and a column for each coordinate: one pass, where a product with all places would take three.
    grid = torch.empty(len(images), height, width, 2, device=images.device)
    for axis in (0, 1):
        torch.add(
            moved[:, axis, 0] * x, moved[:, axis, 1] * y + moved[:, axis, 2], out=grid[..., axis]
        )
    if matrices[:, 2, :2].any():
        depth = moved[:, 2, 0] * x + (moved[:, 2, 1] * y + moved[:, 2, 2])
        for axis in (0, 1):
            grid[..., axis] /= depth
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def _matrices(rows: Sequence[Sequence[Values | int]], count: int) -> Values:
    matrices = np.empty((count, 3, 3), np.float32)
    for place in np.ndindex(3, 3):
        matrices[:, *place] = rows[place[0]][place[1]]
    return matrices
