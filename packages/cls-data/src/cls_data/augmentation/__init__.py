"""Batched augmentation on the device, with separate parameters for every sample.

Shapes throughout: B images of height H and width W, channels R, G, B, levels 0-255. Parameters are
drawn on the CPU, so they are the same on every device. Pixel noise alone is drawn on the device
of the images.
"""

from cls_data.augmentation.broadcast import BroadcastDegradation
from cls_data.augmentation.color_jitter import ColorJitter
from cls_data.augmentation.filters import GaussianBlur
from cls_data.augmentation.geometry import GeometricTransform
from cls_data.augmentation.mixup import MixupCutmix
from cls_data.augmentation.params import (
    AugmentationOp,
    AugmentationStage,
    OpParameters,
    ParamSampler,
)
from cls_data.augmentation.pipelines import (
    Augmentation,
    AugmentationPipeline,
    BroadcastAugmentation,
    LightAugmentation,
    PhotoAugmentation,
)
from cls_data.augmentation.random_erasing import RandomErasing
from cls_data.augmentation.torchvision_augmentation import TorchvisionAugmentation

__all__ = [
    "Augmentation",
    "AugmentationOp",
    "AugmentationPipeline",
    "AugmentationStage",
    "BroadcastAugmentation",
    "BroadcastDegradation",
    "ColorJitter",
    "GaussianBlur",
    "GeometricTransform",
    "LightAugmentation",
    "MixupCutmix",
    "OpParameters",
    "ParamSampler",
    "PhotoAugmentation",
    "RandomErasing",
    "TorchvisionAugmentation",
]
