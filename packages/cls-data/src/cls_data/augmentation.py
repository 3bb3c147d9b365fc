"""Batched augmentation on the device, every sample with parameters of its own.

Shapes: B images, H by W pixels, channels R, G, B. Levels are 0-255 throughout.
"""

import math
from abc import ABC, abstractmethod
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

_LUMA: Final = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's conversion to "L"


class Augmentation(ABC):
    """Maps a batch of stored images to a batch of changed ones."""

    @abstractmethod
    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return float32 [B, 3, H, W] in 0-255 for uint8 [B, 3, H, W]; all draws come from the CPU generator."""


class LightAugmentation(Augmentation):
    """Affine, colour, erasing: mild enough that a person still reads every number.

    Draws are uniform, made on the CPU (so that every device sees the same ones), and each sample has its own.

    Args:
        rotation: largest angle in degrees, to either side.
        translation: largest shift, as a share of the image's width and height.
        zoom: smallest and largest factor of the content's size; drawn evenly on a logarithmic scale.
        shear: largest horizontal shear angle in degrees.
        brightness: largest change of the factor 1 that all levels are multiplied by.
        contrast: likewise, of the distance from the image's mean luma.
        saturation: likewise, of the distance from grey.
        erase_probability: share of the samples from which a rectangle is erased.
        erase_area: smallest and largest area of that rectangle, as a share of the image.
        horizontal_flip: share of the samples that are mirrored. Off by default: a mirrored digit is another sign.
    """

    def __init__(
        self,
        *,
        rotation: float = 8.0,
        translation: float = 0.06,
        zoom: tuple[float, float] = (0.88, 1.12),
        shear: float = 6.0,
        brightness: float = 0.3,
        contrast: float = 0.3,
        saturation: float = 0.4,
        erase_probability: float = 0.25,
        erase_area: tuple[float, float] = (0.02, 0.1),
        horizontal_flip: float = 0.0,
    ) -> None:
        for name, share in (("erase_probability", erase_probability), ("horizontal_flip", horizontal_flip)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share of the samples, 0 to 1; got {share}")
        for name, (low, high) in (("zoom", tuple(zoom)), ("erase_area", tuple(erase_area))):
            if not 0 < low <= high:
                raise ValueError(f"{name} must be (smallest, largest), both over 0; got ({low}, {high})")
        for name, change in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            if not 0 <= change <= 1:
                raise ValueError(f"{name} is the largest change of a factor of 1, 0 to 1; got {change}")
        self.rotation = rotation
        self.translation = translation
        self.zoom = zoom
        self.shear = shear
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.erase_probability = erase_probability
        self.erase_area = erase_area
        self.horizontal_flip = horizontal_flip

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return float32 [B, 3, H, W] in 0-255 for uint8 [B, 3, H, W]; all draws come from the CPU generator."""
        size = len(images)
        draws = torch.rand(16, size, generator=generator).to(images.device)
        theta = affine_matrices(
            degrees=_spread(draws[0], self.rotation),
            shift_x=_spread(draws[1], self.translation),
            shift_y=_spread(draws[2], self.translation),
            zoom=_between(draws[3], math.log(self.zoom[0]), math.log(self.zoom[1])).exp(),
            shear_degrees=_spread(draws[4], self.shear),
            mirrored=draws[5] < self.horizontal_flip,
            aspect=images.shape[3] / images.shape[2],
        )
        moved = resample(images.float(), theta)
        coloured = recolour(
            moved,
            brightness=1 + _spread(draws[6], self.brightness),
            contrast=1 + _spread(draws[7], self.contrast),
            saturation=1 + _spread(draws[8], self.saturation),
        )
        area = _between(draws[9], *self.erase_area) * (draws[10] < self.erase_probability)
        return erase(coloured, area, ratio=draws[11], left=draws[12], top=draws[13], level=draws[14] * 255)


def affine_matrices(
    *,
    degrees: Tensor,
    shift_x: Tensor,
    shift_y: Tensor,
    zoom: Tensor,
    shear_degrees: Tensor,
    mirrored: Tensor,
    aspect: float,
) -> Tensor:
    """Return float32 [B, 2, 3]: for each place in the output, the place in the input, both in -1..1.

    The content is mirrored, sheared, turned counter-clockwise by `degrees`, enlarged by `zoom` and moved by
    `shift` (shares of the width and height, to the right and down). All arguments but `aspect` (width over
    height) are [B]. The inverse is built directly, since a resample asks where each pixel comes from.
    """
    angle, shear = torch.deg2rad(degrees), torch.tan(torch.deg2rad(shear_degrees))
    cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    # Rows of (inverse shear)·(inverse rotation)/zoom in square pixels; y points down, so the signs are swapped.
    a, b = cosine + shear * sine, -sine + shear * cosine
    c, d = sine, cosine
    sign = torch.where(mirrored, -1.0, 1.0)
    a, b = a * sign, b * sign
    b, c = b / aspect, c * aspect
    shift_x, shift_y = -2 * shift_x, -2 * shift_y
    return torch.stack(
        [
            torch.stack([a, b, a * shift_x + b * shift_y], dim=1),
            torch.stack([c, d, c * shift_x + d * shift_y], dim=1),
        ],
        dim=1,
    )


def resample(images: Tensor, theta: Tensor) -> Tensor:
    """Resample float [B, 3, H, W] once through `theta` [B, 2, 3], bilinearly; edges repeat beyond the border."""
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def recolour(images: Tensor, *, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Change saturation, then contrast about the mean luma, then brightness, as one matrix and one offset.

    Takes float [B, 3, H, W] in 0-255 and factors [B], 1 meaning no change. Levels are clamped once, at the end.
    """
    luma = torch.tensor(_LUMA, device=images.device)
    flat = images.flatten(2)
    identity = torch.eye(3, device=images.device)
    factor = saturation[:, None, None]
    desaturating = factor * identity + (1 - factor) * luma.expand(3, 3)
    gain = (contrast * brightness)[:, None, None]
    mean_luma = (flat.mean(dim=2) @ luma)[:, None, None]
    offset = (1 - contrast)[:, None, None] * mean_luma * brightness[:, None, None]
    mixed = torch.baddbmm(offset.expand(-1, 3, 1), gain * desaturating, flat)
    return mixed.clamp_(0, 255).view_as(images)


def erase(images: Tensor, area: Tensor, *, ratio: Tensor, left: Tensor, top: Tensor, level: Tensor) -> Tensor:
    """Return the images with one rectangle of each filled with one grey level.

    Args:
        images: float [B, 3, H, W].
        area: [B], share of the image; 0 erases nothing.
        ratio: [B], 0-1, from twice as high as wide to twice as wide as high.
        left: [B], 0-1, place of the rectangle between the left and the right edge.
        top: [B], likewise from the upper to the lower edge.
        level: [B], 0-255.
    """
    height, width = images.shape[2:]
    stretch = torch.exp2(ratio - 0.5)
    box_width, box_height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    x = (torch.arange(width, device=images.device) + 0.5) / width
    y = (torch.arange(height, device=images.device) + 0.5) / height
    from_x, from_y = left * (1 - box_width), top * (1 - box_height)
    inside_x = (x >= from_x[:, None]) & (x < (from_x + box_width)[:, None])
    inside_y = (y >= from_y[:, None]) & (y < (from_y + box_height)[:, None])
    inside = (inside_y[:, :, None] & inside_x[:, None, :])[:, None]
    return torch.where(inside, level[:, None, None, None], images)


def _spread(draw: Tensor, largest: float) -> Tensor:
    return (2 * draw - 1) * largest


def _between(draw: Tensor, low: float, high: float) -> Tensor:
    return low + draw * (high - low)
