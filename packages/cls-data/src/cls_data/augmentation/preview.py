"""Preview of an augmentation: each original next to several augmented versions."""

import torch
from PIL import Image
from torch import Tensor

from cls_data.augmentation.pipelines import (
    Augmentation,
    BroadcastAugmentation,
    LightAugmentation,
    PhotoAugmentation,
)

PIPELINES: dict[str, type[Augmentation] | None] = {
    "none": None,
    "light": LightAugmentation,
    "broadcast": BroadcastAugmentation,
    "photo": PhotoAugmentation,
}
"""Pipelines by name, with their default settings."""

_VERSIONS = 8
_GAP = 6
_TILE_SIZE = 100


def draw_preview(
    images: Tensor, augmentation: Augmentation | None, *, seed: int = 0
) -> Image.Image:
    """Draw one row per uint8 image: the original, a gap, and augmented versions, about 100 px each.

    The first version has the given seed, the next one seed + 1, and so on.
    """
    columns = [images]
    for version in range(_VERSIONS):
        if augmentation is None:
            columns.append(images)
            continue
        changed = augmentation(images, seed + version)
        levels = changed.round().clamp(0, 255)
        columns.append(levels.to(torch.uint8))

    height, width = images.shape[2:]
    scale = max(1, round(_TILE_SIZE / max(height, width)))
    originals = _draw_grid(columns[:1], scale)
    augmented = _draw_grid(columns[1:], scale)
    size = (originals.width + _GAP + augmented.width, originals.height)
    preview = Image.new("RGB", size, "white")

    preview.paste(originals, (0, 0))
    preview.paste(augmented, (originals.width + _GAP, 0))
    return preview


def _draw_grid(columns: list[Tensor], scale: int) -> Image.Image:
    """Draw batches of uint8 [N, 3, H, W] side by side, one row per image, enlarged."""
    rows = torch.cat(columns, dim=3)
    pixels = torch.cat(list(rows), dim=1)
    pixels = pixels.permute(1, 2, 0).contiguous()
    grid = Image.fromarray(pixels.numpy())

    size = (grid.width * scale, grid.height * scale)
    return grid.resize(size, Image.Resampling.NEAREST)
