"""Batched augmentation on the device, every sample with parameters of its own.

Shapes throughout: B images, H by W pixels, channels R, G, B. Levels are 0-255. Random draws are made on the CPU, so
that every device sees the same ones; the noise of single pixels alone is drawn where the images lie.
"""

from cls_data.augmentation.broadcast import Broadcast
from cls_data.augmentation.color_jitter import ColorJitter
from cls_data.augmentation.filters import Blur
from cls_data.augmentation.geometry import Geometry
from cls_data.augmentation.mixup import MixupCutmix
from cls_data.augmentation.pipelines import (
    Augmentation,
    AugmentationPipeline,
    BroadcastAugmentation,
    LightAugmentation,
    PhotoAugmentation,
)
from cls_data.augmentation.random_erasing import RandomErasing
from cls_data.augmentation.torchvision_ops import TorchvisionOps

__all__ = [
    "Augmentation",
    "AugmentationPipeline",
    "Blur",
    "Broadcast",
    "BroadcastAugmentation",
    "ColorJitter",
    "Geometry",
    "LightAugmentation",
    "MixupCutmix",
    "PhotoAugmentation",
    "RandomErasing",
    "TorchvisionOps",
]
