"""Batched augmentation on the device, every sample with parameters of its own.

Shapes throughout: B images, H by W pixels, channels R, G, B. Levels are 0-255. Random draws are made on the CPU, so
that every device sees the same ones; the noise of single pixels alone is drawn where the images lie.
"""

from cls_data.augmentation.broadcast import Broadcast
from cls_data.augmentation.colour import Colour
from cls_data.augmentation.erasing import Erasing
from cls_data.augmentation.filters import Blur
from cls_data.augmentation.geometry import Geometry
from cls_data.augmentation.mixing import Mixing
from cls_data.augmentation.per_sample import PerSample
from cls_data.augmentation.recipe import (
    Augmentation,
    BroadcastAugmentation,
    LightAugmentation,
    PhotoAugmentation,
    Recipe,
)

__all__ = [
    "Augmentation",
    "Blur",
    "Broadcast",
    "BroadcastAugmentation",
    "Colour",
    "Erasing",
    "Geometry",
    "LightAugmentation",
    "Mixing",
    "PerSample",
    "PhotoAugmentation",
    "Recipe",
]
