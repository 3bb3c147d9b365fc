"""Write bundles of random networks, for benchmarks of exported models."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cls_export import LabelsMapping, Preprocessing
from cls_export.convert.exporter import write_bundle
from cls_models import build_backbone

CLASS_TO_INDEX = {str(number): number for number in range(43)}
CROP_SIZE = (40, 29)
"""Median height and width of jersey number crops."""


def write_random_bundle(folder: Path, size: int) -> tuple[Path, torch.nn.Module]:
    """Write a bundle of a ResNet-18 with random weights.

    Args:
        folder: Where the bundle and a crop, `crop.png`, are written.
        size: Side of the model's input in pixels.

    Returns:
        The bundle's folder and the network.
    """
    torch.manual_seed(0)
    network = build_backbone("resnet18", len(CLASS_TO_INDEX), stem="standard").eval()
    preprocessing = Preprocessing(
        size=(size, size), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    crop = folder / "crop.png"
    Image.fromarray(random_crops(1)[0]).save(crop)
    bundle = folder / f"bundle{size}"
    labels = LabelsMapping.from_classes(CLASS_TO_INDEX, preprocessing)
    write_bundle(network, labels, bundle, [crop])
    return bundle, network


def random_crops(count: int) -> list[NDArray[np.uint8]]:
    """Return random uint8 crops of the median size."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*CROP_SIZE, 3), dtype=np.uint8) for _ in range(count)]
