"""A picture of what an augmentation does: each original beside some draws."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cls_data.augmentation import (
    Augmentation,
    BroadcastAugmentation,
    LightAugmentation,
    PhotoAugmentation,
)

RECIPES: dict[str, type[Augmentation] | None] = {
    "none": None,
    "light": LightAugmentation,
    "broadcast": BroadcastAugmentation,
    "photo": PhotoAugmentation,
}
"""The recipes that have a name, with their own settings."""

_GAP = 6


def preview(
    images: Tensor, augmentation: Augmentation | None, *, draws: int = 8, seed: int = 0
) -> Image.Image:
    """Draw a row for each image: the original, a gap, and `draws` changed ones, enlarged to about 100 pixels.

    Args:
        images: uint8 [N, 3, H, W], as stored.
        augmentation: None changes nothing.
        draws: changed ones.
        seed: of the first; the others have the following ones.
    """
    columns = [images]
    for draw in range(draws):
        generator = torch.Generator().manual_seed(seed + draw)
        changed = augmentation(images, generator) if augmentation else images.float()
        columns.append(changed.round().clamp(0, 255).to(torch.uint8))
    height, width = images.shape[2:]
    canvas = np.full((len(images) * height, (draws + 1) * width, 3), 255, np.uint8)
    for column, shown in enumerate(columns):
        tiles = shown.permute(0, 2, 3, 1).reshape(-1, width, 3).numpy()
        canvas[:, column * width : (column + 1) * width] = tiles
    scale = max(1, round(100 / max(height, width)))
    picture = Image.fromarray(canvas).resize(
        (canvas.shape[1] * scale, canvas.shape[0] * scale), Image.Resampling.NEAREST
    )
    spaced = Image.new("RGB", (picture.width + _GAP, picture.height), "white")
    spaced.paste(picture.crop((0, 0, width * scale, picture.height)), (0, 0))
    spaced.paste(
        picture.crop((width * scale, 0, picture.width, picture.height)), (width * scale + _GAP, 0)
    )
    return spaced
