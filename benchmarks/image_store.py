"""Compare building the image store with a Pillow loop, and time the data gate.

Command:  uv run python benchmarks/image_store.py    (about 3 minutes on two cores; or --quick)
Expected: a table; the store is built 1.3 times as fast as by a loop over Pillow on all cores, and
          the gate checks 100,000 crops in at most 90 seconds.

The loop runs in processes and in threads, and the faster of them counts. Candidates run in turn;
the figures are medians of five rounds.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timing import time_in_turns

from cls_data import ImageStore, SyntheticNumbers, check, keep_freed_memory, read_split
from cls_export import Preprocessing

CORES = os.cpu_count() or 1
SIDE = 64
CHUNK = 128
PREPROCESSING = Preprocessing(size=(SIDE, SIDE), mean=(0, 0, 0), std=(1, 1, 1))
EXPECTED_RATIO = 1.3
EXPECTED_GATE_SPEED = 100_000 / 90


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, fewer images")
    options = parser.parse_args()
    rounds, images = (1, 1024) if options.quick else (5, 4096)
    keep_freed_memory()
    print(f"{'images/s on all cores':<40}{'ours':>10}{'baseline':>10}{'ratio':>8}{'expected':>10}")
    with tempfile.TemporaryDirectory() as folder:
        crops = Path(folder) / "crops"
        SyntheticNumbers(train=images // 12 + 1, valid=1, test=1).write(crops)
        compare_store(crops, "store of crops of 34-64 px", rounds)
        photos = Path(folder) / "photos"
        write_photos(photos, images // 8)
        compare_store(photos, "store of photos of 640x480 px", rounds)
        time_gate(crops, rounds)


def compare_store(root: Path, name: str, rounds: int) -> None:
    """Print a row for building the store of a data set."""
    records = read_split(root, "train")
    paths = [str(record.path) for record in records]
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]

    def build_store() -> None:
        ImageStore.build(records, PREPROCESSING, workers=CORES)

    def loop_in_processes() -> None:
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(CORES, mp_context=context) as pool:
            np.concatenate(list(pool.map(decode_with_pillow, chunks)))

    def loop_in_threads() -> None:
        with ThreadPoolExecutor(CORES) as pool:
            np.concatenate(list(pool.map(decode_with_pillow, chunks)))

    calls = [build_store, loop_in_processes, loop_in_threads]
    speeds = []
    for durations in time_in_turns(calls, rounds=rounds):
        speeds.append(len(paths) / statistics.median(durations))
    print_row(name, speeds[0], max(speeds[1:]), EXPECTED_RATIO)


def decode_with_pillow(paths: Sequence[str]) -> np.ndarray[Any, Any]:
    """Decode and resize images with Pillow: uint8 [N, SIDE, SIDE, 3]."""
    images = []
    for path in paths:
        image = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        images.append(np.asarray(image))
    return np.stack(images)


def write_photos(root: Path, count: int) -> None:
    """Write a data set of JPEG files with about the detail of photos."""
    rng = np.random.default_rng(0)
    for split, images in (("train", count), ("valid", 2)):
        (root / split).mkdir(parents=True)
        lines = []
        for number in range(images):
            coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
            photo = coarse.resize((640, 480), Image.Resampling.BICUBIC)
            photo.save(root / split / f"{number}.jpg", quality=85)
            row = {"image": f"{number}.jpg", "suffix": str(number % 2)}
            lines.append(json.dumps(row) + "\n")
        (root / split / "annotations.jsonl").write_text("".join(lines))


def time_gate(root: Path, rounds: int) -> None:
    """Print a row for the data gate."""
    images = sum(1 for path in root.rglob("*") if path.suffix in (".jpg", ".png"))

    def run_gate() -> None:
        check(root, PREPROCESSING, workers=CORES)

    (durations,) = time_in_turns([run_gate], rounds=rounds)
    print_row(
        "gate, crops of 34-64 px", images / statistics.median(durations), EXPECTED_GATE_SPEED, 1
    )


def print_row(name: str, ours: float, baseline: float, expected: float) -> None:
    """Print one row."""
    ratio = ours / baseline
    note = "" if ratio >= expected else "  NOT REACHED"
    print(
        f"{name:<40}{ours:>10,.0f}{baseline:>10,.0f}{ratio:>8.2f}{expected:>10}{note}", flush=True
    )


if __name__ == "__main__":
    main()
