"""Compare the batched broadcast augmentation with torchvision's transforms, sample by sample.

Command:  uv run python benchmarks/augmentation.py    (about 2 minutes; --quick for one round)
Expected: a table; 8 times the images/s of torchvision at 64 to 128 px, 6 times at 128 to 224 px,
          and 50 times for gathering rows alone.

The baseline is torchvision v2 on Pillow images with the same operations, probabilities, and
strengths. Both use one thread. Candidates run in turn; the figures are medians of five rounds.
"""

import argparse
import io
import random
import statistics

import numpy as np
import torch
from PIL import Image
from timing import time_in_turns
from torch import nn
from torchvision.transforms import v2

from cls_data import BroadcastAugmentation, keep_freed_memory
from cls_data.images.resize import resize

BILINEAR = v2.InterpolationMode.BILINEAR
MEAN = [0.485, 0.456, 0.406]
STD = [0.229, 0.224, 0.225]
BATCH = 64
STORED_BATCHES = 16
GATHERED_BATCHES = 100
SIZES = ((64, 128, 8), (128, 224, 6))
"""Stored side, output side, and the expected ratio."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, fewer images")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    print(
        f"{'images/s on one core':<44}{'ours':>10}{'torchvision':>13}{'ratio':>8}{'expected':>10}"
    )
    for side, output, expected in SIZES:
        if options.quick:
            compare(side, output, expected, rounds=1, baseline_batches=2)
        else:
            compare(side, output, expected, rounds=5, baseline_batches=4)


def compare(side: int, output: int, expected: float, rounds: int, baseline_batches: int) -> None:
    """Print rows for augmentation and for gathering alone."""
    generator = torch.Generator().manual_seed(0)
    stored = make_images(BATCH * STORED_BATCHES, side, generator)
    pictures = []
    for image in stored[: BATCH * baseline_batches]:
        pictures.append(Image.fromarray(image.permute(1, 2, 0).numpy()))
    augmentation = BroadcastAugmentation()
    baseline = torchvision_pipeline(side, output)
    scale = (1 / (255 * torch.tensor(STD)))[:, None, None]
    bias = (-torch.tensor(MEAN) / torch.tensor(STD))[:, None, None]

    def augment_batches() -> None:
        for start in range(0, len(stored), BATCH):
            images = stored.index_select(0, torch.arange(start, start + BATCH))
            images = augmentation(images, seed=start)
            resize(images.mul_(scale).add_(bias), (output, output))

    def gather_batches() -> None:
        for _ in range(GATHERED_BATCHES):
            rows = torch.randint(0, len(stored), (BATCH,), generator=generator)
            stored.index_select(0, rows)

    def augment_samples() -> None:
        for start in range(0, len(pictures), BATCH):
            torch.stack([baseline(picture) for picture in pictures[start : start + BATCH]])

    calls = [augment_batches, gather_batches, augment_samples]
    durations = [statistics.median(times) for times in time_in_turns(calls, rounds=rounds)]
    torchvision_speed = len(pictures) / durations[2]
    augmentation_speed = len(stored) / durations[0]
    gathering_speed = BATCH * GATHERED_BATCHES / durations[1]
    name = f"broadcast augmentation, {side} px to {output} px"
    print_row(name, augmentation_speed, torchvision_speed, expected)
    print_row(f"gathering rows of {side} px", gathering_speed, torchvision_speed, 50)


def make_images(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """Return smooth random images, uint8 [count, 3, side, side]."""
    levels = torch.randint(0, 256, (count, 3, side // 4, side // 4), generator=generator).float()
    smooth = nn.functional.interpolate(levels, (side, side), mode="bicubic")
    return smooth.clamp_(0, 255).to(torch.uint8)


def torchvision_pipeline(side: int, output: int) -> v2.Transform:
    """Return the broadcast pipeline as torchvision transforms of one Pillow image."""

    def sometimes(transform: nn.Module, probability: float) -> nn.Module:
        return v2.RandomApply([transform], p=probability)

    max_sigma = 0.02 * side
    kernel_size = 2 * round(3 * max_sigma) + 1
    quality = v2.Compose(
        [
            sometimes(v2.RandomAffine(0, scale=(0.8, 1.2), interpolation=BILINEAR), 0.5),
            sometimes(DownscaleAndBack(), 0.5),
            sometimes(AddNoise(), 0.5),
            sometimes(CompressAsJpeg(), 0.5),
        ]
    )
    augmented = v2.Compose(
        [
            v2.RandomPerspective(0.15, p=1.0, interpolation=BILINEAR),
            v2.RandomAffine(10, (0.06, 0.06), (0.9, 1.1), 8, interpolation=BILINEAR),
            v2.RandomResizedCrop((side, side), (0.8, 1.0), (0.9, 1.1), interpolation=BILINEAR),
            v2.ColorJitter(0.35, 0.35, 0.5),
            v2.RandomGrayscale(0.05),
            sometimes(v2.GaussianBlur(kernel_size, (0.004 * side, max_sigma)), 0.2),
            sometimes(quality, 0.5),
        ]
    )
    return v2.Compose(
        [
            sometimes(augmented, 0.9),
            v2.Resize((output, output), BILINEAR),
            v2.ToImage(),
            v2.RandomErasing(0.2, (0.02, 0.1), (0.5, 2.0)),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


class DownscaleAndBack(nn.Module):
    """Lower the resolution of a Pillow image."""

    def forward(self, image: Image.Image) -> Image.Image:
        """Return the image at 40 to 90% of its resolution, enlarged to its size."""
        factor = random.uniform(0.4, 0.9)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        small = image.resize(size, Image.Resampling.BILINEAR)
        return small.resize(image.size, Image.Resampling.BILINEAR)


class AddNoise(nn.Module):
    """Add Gaussian noise to a Pillow image."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)

    def forward(self, image: Image.Image) -> Image.Image:
        """Return the image with noise of 2 to 12 levels."""
        levels = np.asarray(image, np.float32)
        noise = self.rng.standard_normal(levels.shape, np.float32) * random.uniform(2, 12)
        return Image.fromarray((levels + noise).clip(0, 255).astype(np.uint8))


class CompressAsJpeg(nn.Module):
    """Compress a Pillow image."""

    def forward(self, image: Image.Image) -> Image.Image:
        """Return the image after JPEG compression of quality 30 to 80."""
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=random.randint(30, 80))
        return Image.open(stream).convert("RGB")


def print_row(name: str, ours: float, baseline: float, expected: float) -> None:
    """Print one row."""
    ratio = ours / baseline
    note = "" if ratio >= expected else "  NOT REACHED"
    print(
        f"{name:<44}{ours:>10,.0f}{baseline:>13,.0f}{ratio:>8.2f}{expected:>10}{note}", flush=True
    )


if __name__ == "__main__":
    main()
