"""What cls-data costs beside the usual way: augmentation, gathering, filling the store, loader workers, the gate.

Command:  uv run python benchmarks/data.py            (about 6 minutes on two cores; --quick for one round of less)
Expected: a table whose last columns say what was asked for and whether it was reached.

Everything is measured in one run on one machine: rounds in which the candidates take turns, medians of five, ratios
of those medians. "Usual" is torchvision's transforms v2 on Pillow images, sample by sample, with the operations, shares
and strengths of our broadcast recipe, and for the store a loop over Pillow on all cores. One core means one thread.
"""

import argparse
import io
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from cls_data import (
    BroadcastAugmentation,
    ImageStore,
    SyntheticNumbers,
    check,
    keep_freed_memory,
    read_split,
)
from cls_data.images.resize import resize
from cls_data.images.store import PixelRows
from cls_data.loading.loaders import BatchDataset, batch_loader
from cls_data.loading.samplers import EpochSampler
from cls_export.contract.preprocessing import Preprocessing

BILINEAR = v2.InterpolationMode.BILINEAR
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
BATCH = 64
CORES = os.cpu_count() or 1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Benchmarks of cls-data.")
    parser.add_argument("--quick", action="store_true", help="one round, fewer images")
    parser.add_argument("--memory-of", metavar="WORKERS", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()
    if options.memory_of is not None:
        print(proportional_memory(options.memory_of))
        return
    rounds, images = (1, 1024) if options.quick else (5, 4096)
    print(f"{'what':<58}{'ours':>12}{'usual':>12}{'ratio':>8}{'asked':>8}")
    torch.set_num_threads(1)
    for side, output, asked in ((64, 128, 8), (128, 224, 6)):
        augmentation(side, output, asked, rounds, batches=2 if options.quick else 4)
    with tempfile.TemporaryDirectory() as folder:
        crops = Path(folder) / "crops"
        SyntheticNumbers(train=images // 12 + 1, valid=1, test=1).write(crops)
        filling(crops, "store build, crops of 34-64 px", rounds, 1.3)
        photos = Path(folder) / "photos"
        write_photos(photos, images // 8)
        filling(photos, "store build, photographs of 640x480", rounds, 1.3)
        gate(crops, rounds)
    memory(rounds)


def augmentation(side: int, output: int, asked: float, rounds: int, batches: int) -> None:
    """Compare the broadcast recipe with the same operations sample by sample, and both with gathering alone."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(
        0, 256, (BATCH * 16, 3, side // 4, side // 4), generator=generator
    ).float()
    stored = (
        nn.functional.interpolate(levels, (side, side), mode="bicubic")
        .clamp_(0, 255)
        .to(torch.uint8)
    )
    pictures = [
        Image.fromarray(image.permute(1, 2, 0).numpy()) for image in stored[: BATCH * batches]
    ]
    recipe, usual = BroadcastAugmentation(), usual_pipeline(side, output)
    scale = (1 / (255 * torch.tensor(STD)))[:, None, None]
    bias = (-torch.tensor(MEAN) / torch.tensor(STD))[:, None, None]

    def ours() -> int:
        for start in range(0, BATCH * 16, BATCH):
            images = recipe(stored.index_select(0, torch.arange(start, start + BATCH)), generator)
            resize(images.mul_(scale).add_(bias), (output, output))
        return BATCH * 16

    def theirs() -> int:
        for start in range(0, len(pictures), BATCH):
            torch.stack([usual(picture) for picture in pictures[start : start + BATCH]])
        return len(pictures)

    def gathering() -> int:
        for _ in range(100):
            stored.index_select(0, torch.randint(0, len(stored), (BATCH,), generator=generator))
        return BATCH * 100

    own, gathered, peer = in_turns([ours, gathering, theirs], rounds)
    row(f"broadcast recipe, {side} px to {output} px, images/s, one core", own, peer, asked)
    row(f"gathering rows of {side} px, images/s, one core", gathered, peer, 50)


def usual_pipeline(side: int, output: int) -> v2.Transform:
    """Return the broadcast recipe in torchvision's transforms, for one Pillow image."""

    def sometimes(transform: nn.Module, share: float) -> nn.Module:
        return v2.RandomApply([transform], p=share)

    kernel = (
        2 * round(0.06 * side) + 1
    )  # three standard deviations of the strongest blur to either side
    degraded = v2.Compose(
        [
            sometimes(v2.RandomAffine(0, scale=(0.8, 1.2), interpolation=BILINEAR), 0.5),
            sometimes(_DownAndUp(), 0.5),
            sometimes(_Noise(), 0.5),
            sometimes(_Jpeg(), 0.5),
        ]
    )
    changed = v2.Compose(
        [
            v2.RandomPerspective(0.15, p=1.0, interpolation=BILINEAR),
            v2.RandomAffine(10, (0.06, 0.06), (0.9, 1.1), 8, interpolation=BILINEAR),
            v2.RandomResizedCrop((side, side), (0.8, 1.0), (0.9, 1.1), interpolation=BILINEAR),
            v2.ColorJitter(0.35, 0.35, 0.5),
            v2.RandomGrayscale(0.05),
            sometimes(v2.GaussianBlur(kernel, (0.004 * side, 0.02 * side)), 0.2),
            sometimes(degraded, 0.5),
        ]
    )
    return v2.Compose(
        [
            sometimes(changed, 0.9),
            v2.Resize((output, output), BILINEAR),
            v2.ToImage(),
            v2.RandomErasing(0.2, (0.02, 0.1), (0.5, 2.0)),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


class _DownAndUp(nn.Module):
    def forward(self, image: Image.Image) -> Image.Image:
        share = random.uniform(0.4, 0.9)
        small = (max(1, round(image.width * share)), max(1, round(image.height * share)))
        return image.resize(small, Image.Resampling.BILINEAR).resize(
            image.size, Image.Resampling.BILINEAR
        )


class _Noise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.draws = np.random.default_rng(0)

    def forward(self, image: Image.Image) -> Image.Image:
        levels = np.asarray(image, np.float32)
        noise = self.draws.standard_normal(levels.shape, np.float32) * random.uniform(2, 12)
        return Image.fromarray((levels + noise).clip(0, 255).astype(np.uint8))


class _Jpeg(nn.Module):
    def forward(self, image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=random.randint(30, 80))
        return Image.open(stream).convert("RGB")


def filling(root: Path, name: str, rounds: int, asked: float) -> None:
    """Compare filling a store with a loop over Pillow, by processes and by threads, whichever is faster."""
    records, preprocessing = (
        read_split(root, "train"),
        Preprocessing(size=(64, 64), mean=(0, 0, 0), std=(1, 1, 1)),
    )
    paths = [str(record.path) for record in records]
    chunks = [paths[start : start + 128] for start in range(0, len(paths), 128)]

    def ours() -> int:
        ImageStore.build(records, preprocessing, workers=CORES)
        return len(paths)

    def processes() -> int:
        with ProcessPoolExecutor(CORES, mp_context=multiprocessing.get_context("fork")) as pool:
            np.concatenate(list(pool.map(pillow_loop, chunks)))
        return len(paths)

    def threads() -> int:
        with ThreadPoolExecutor(CORES) as pool:
            np.concatenate(list(pool.map(pillow_loop, chunks)))
        return len(paths)

    own, *others = in_turns([ours, processes, threads], rounds)
    row(f"{name}, images/s, all cores", own, max(others), asked)


def pillow_loop(paths: Sequence[str]) -> np.ndarray[Any, Any]:
    """Decode and resize, as anybody would."""
    images = [
        Image.open(path).convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)
        for path in paths
    ]
    return np.stack([np.asarray(image) for image in images])


def write_photos(root: Path, count: int) -> None:
    """Write JPEG files with the detail of photographs."""
    draws = np.random.default_rng(0)
    for split in ("train", "valid"):
        (root / split).mkdir(parents=True)
        lines = []
        for number in range(count if split == "train" else 2):
            coarse = Image.fromarray(draws.integers(0, 256, (60, 80, 3), dtype=np.uint8))
            coarse.resize((640, 480), Image.Resampling.BICUBIC).save(
                root / split / f"{number}.jpg", quality=85
            )
            lines.append(f'{{"image": "{number}.jpg", "suffix": "{number % 2}"}}\n')
        (root / split / "annotations.jsonl").write_text("".join(lines))


def gate(root: Path, rounds: int) -> None:
    """Measure the gate alone; asked for are 100,000 crops in 90 seconds."""

    def ours() -> int:
        report = check(
            root, Preprocessing(size=(64, 64), mean=(0, 0, 0), std=(1, 1, 1)), workers=CORES
        )
        return len(report.evidence.rows)

    (speed,) = in_turns([ours], rounds)
    row("gate, crops of 34-64 px, images/s, all cores", speed, 100_000 / 90, 1)


def memory(rounds: int) -> None:
    """Compare the memory of a process with four loader workers to that with one; the store holds 2 GiB."""
    command = [sys.executable, __file__, "--memory-of"]
    taken: dict[int, list[float]] = {1: [], 4: []}
    for _ in range(min(rounds, 3)):
        for workers, megabytes in taken.items():
            output = subprocess.run(
                [*command, str(workers)], check=True, capture_output=True, text=True
            ).stdout
            megabytes.append(float(output))
    one, four = (statistics.median(megabytes) for megabytes in taken.values())
    print(
        f"{'loader: memory with four workers and with one, MB':<58}{four:>12.0f}{one:>12.0f}{four / one:>8.3f}{1.05:>8}"
    )


def proportional_memory(workers: int) -> float:
    """Return the megabytes of this process and its workers, shared pages counted once (Linux)."""
    pixels = torch.empty(2**31 // (3 * 64 * 64), 3, 64, 64, dtype=torch.uint8).random_()
    batches = BatchDataset(PixelRows(pixels), torch.zeros(len(pixels), dtype=torch.int64))
    loader = batch_loader(batches, EpochSampler(len(pixels), BATCH, 0), workers=workers)
    total = 0.0
    for number, _ in enumerate(loader):
        if number == 400:  # every worker has worked by then
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            total = sum(
                _proportional_set_size(process) for process in [str(os.getpid()), *children]
            )
            break
    return total


def _proportional_set_size(process: str) -> float:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def in_turns(candidates: Sequence[Callable[[], int]], rounds: int) -> list[float]:
    """Return the median images per second of each, measured in turns after one round to warm up."""
    speeds: list[list[float]] = [[] for _ in candidates]
    for number in range(rounds + 1):
        for candidate, measured in zip(candidates, speeds, strict=True):
            started = time.perf_counter()
            count = candidate()
            if number:
                measured.append(count / (time.perf_counter() - started))
    return [statistics.median(measured) for measured in speeds]


def row(name: str, ours: float, usual: float, asked: float) -> None:
    """Print one line."""
    reached = "" if ours / usual >= asked else "  NOT REACHED"
    print(
        f"{name:<58}{ours:>12,.0f}{usual:>12,.0f}{ours / usual:>8.2f}{asked:>8}{reached}",
        flush=True,
    )


if __name__ == "__main__":
    main()
