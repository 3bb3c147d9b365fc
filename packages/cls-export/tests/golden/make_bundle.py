"""Write a golden bundle.

Command: uv run python packages/cls-export/tests/golden/make_bundle.py

This script wrote bundle_v1/ and, for later schema versions, bundle_v2/ and bundle_v3/. Do not write
them again: they represent the files of existing users. A new schema version needs a new bundle.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from cls_export import LabelsMapping, Preprocessing
from cls_export.convert.exporter import write_bundle

HERE = Path(__file__).parent


def main() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    preprocessing = Preprocessing(size=(12, 10), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    labels = LabelsMapping.from_classes({"": 0, "0": 1, "00": 2, "23": 3}, preprocessing)
    with tempfile.TemporaryDirectory() as folder:
        images = []
        for number in range(5):
            levels = np.random.default_rng(number).integers(0, 256, (5, 4, 3), dtype=np.uint8)
            images.append(Path(folder) / f"{number}.png")
            Image.fromarray(levels).resize((20, 30), Image.Resampling.BICUBIC).save(images[-1])
        write_bundle(module, labels, HERE / "bundle_v3", images)


if __name__ == "__main__":
    main()
