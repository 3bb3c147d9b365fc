"""Measure what grows with the number of images and of classes, before and between steps.

Command:  uv run python benchmarks/scaling.py                     (a minute; 100,000 rows)
          uv run python benchmarks/scaling.py --rows 1000000      (10 minutes, 4 GB of memory)
          uv run python benchmarks/scaling.py --classes 1000 10000
Expected: two tables, which docs/scaling.md extrapolates.

Rows are synthetic: 1,000 image files, each named by many rows, 42 classes, a group, and two
metadata values. Facts about images, which the gate would measure, are random. Bytes are the growth
of the process, per row or in all.
"""

import argparse
import gc
import json
import os
import resource
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from cls_data import DatasetStatistics, EpochSampler, Predictions, Record
from cls_data.annotations.class_tensors import balancing_weights, encode_labels
from cls_data.annotations.classes import build_class_to_idx
from cls_data.annotations.fingerprint import compute_fingerprint
from cls_data.data_source import read_data
from cls_data.gate import GateConfig
from cls_data.gate.inputs import GateInputs, GateRow
from cls_data.gate.inspection import empty_result
from cls_data.gate.rules import apply_rules
from cls_data.images.store_file import StoreFile
from cls_data.shards.shuffling import shuffle_in_windows
from cls_data.splits.stratification import stratify_groups
from cls_export import Preprocessing
from cls_models import build_classification_metrics
from cls_report.page.blocks import Report, Section
from cls_report.page.render import render
from cls_report.page.thumbnails import Thumbnails
from cls_report.reports.evaluation_blocks import classes_table, confusion_matrix
from cls_report.statistics.evaluation import Evaluation

IMAGES = 1000
NUM_CLASSES = 42
FEATURES = 512
"""Features of the last layer of a ResNet-18."""

Result = TypeVar("Result")


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--classes", type=int, nargs="*", default=[1000])
    parser.add_argument("--predictions", type=int, default=5000, help="images of an evaluation")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.rows:
        measure_rows(options.rows)
    for num_classes in options.classes:
        measure_classes(num_classes, options.predictions)


def resident_bytes() -> int:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


@contextmanager
def measured(name: str, rows: int) -> Iterator[None]:
    """Print the seconds of a block, and the bytes per row that it leaves."""
    gc.collect()
    before = resident_bytes()
    started = time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    gc.collect()
    growth = resident_bytes() - before
    print(f"{name:<52}{seconds:>10.2f}{growth / rows:>14,.0f}", flush=True)


def measure_rows(rows: int) -> None:
    """Print a table of what grows with the number of rows."""
    print(f"{f'{rows:,} rows':<52}{'seconds':>10}{'bytes/row':>14}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_annotations(root, rows)
        with measured("read annotations", rows):
            splits = read_data(root)
        records = splits["train"]
        with measured("classes and labels", rows):
            indices = build_class_to_idx(records)
            labels = encode_labels(records, indices)
        measure_gate(records)
        with measured("assign rows to folds", rows):
            stratify_groups(
                [record.label for record in records],
                [record.group for record in records],
                [0.2] * 5,
                seed=0,
            )

        rng = np.random.default_rng(0)
        sizes = rng.integers(17, 64, (rows, 2))
        noise = rng.bytes(32 * rows)
        digests = [noise[start : start + 32] for start in range(0, len(noise), 32)]
        with measured("fingerprint, once", rows):
            compute_fingerprint({"train": zip(records, digests, strict=True)})
        with measured("statistics", rows):
            DatasetStatistics.from_splits(tuple(indices), {"train": (records, sizes)})
        measure_store(root, rows, sizes)
        with measured("order of an epoch, shuffled", rows):
            EpochSampler(rows, 64, 0)._order()
        weights = balancing_weights(labels, len(indices))[labels]
        with measured("order of an epoch, weighted", rows):
            EpochSampler(rows, 64, 0, weights=weights)._order()
        with measured("order of an epoch, shards of 1,792 rows", rows):
            shuffle_in_windows(rows, 1792, 64, 0)
        with measured("plans of an epoch, batches of 64", rows):
            for _ in EpochSampler(rows, 64, 0):
                pass


def write_annotations(root: Path, rows: int) -> None:
    """Write rows of train, and a tenth as many of valid, that share image files."""
    for split, count in (("train", rows), ("valid", rows // 10)):
        folder = root / split / "images"
        folder.mkdir(parents=True)
        for number in range(IMAGES):
            Image.new("RGB", (8, 8)).save(folder / f"{number:05d}.png")
        with (root / split / "annotations.jsonl").open("w") as stream:
            for number in range(count):
                row = {
                    "image": f"images/{number % IMAGES:05d}.png",
                    "suffix": str(number * 7919 % NUM_CLASSES),
                    "group": f"game-{number // 5000}",
                    "metadata": {"camera": f"c{number % 5}", "frame": number},
                }
                stream.write(json.dumps(row) + "\n")


def measure_gate(records: list[Record]) -> None:
    """Print a row for the rules of the gate, without reading images."""
    rows = len(records)
    rng = np.random.default_rng(0)
    noise = rng.bytes(32 * rows)
    files = empty_result(rows)
    files.formats[:] = ["PNG"] * rows
    for number in range(rows):
        files.file_digests[number] = noise[32 * number : 32 * number + 32]
        files.pixel_digests[number] = noise[32 * number : 32 * number + 16]
    files.sizes[:] = rng.integers(17, 64, (rows, 2))
    files.luma[:] = rng.uniform(30, 200, rows)
    files.sharpness[:] = rng.uniform(100, 1000, rows)
    files.hashes[:] = rng.integers(0, 2**63, rows)
    # Means of photographs differ, which the search for near-duplicates depends on.
    brightness = rng.integers(0, 200, (rows, 1))
    files.thumbnails[:] = brightness + rng.integers(0, 56, files.thumbnails.shape)
    with measured("rules of the gate", rows):
        gate_rows = [GateRow("train", record, number) for number, record in enumerate(records)]
        apply_rules(GateInputs(gate_rows, [], files), GateConfig())


def measure_store(root: Path, rows: int, sizes: np.ndarray[Any, Any]) -> None:
    """Print rows for the store file of 16x16 px."""
    file = StoreFile(root / "store", (rows, 3, 16, 16))
    num_chunks = -(-rows // 128)
    chunk = np.zeros((128, 3, 16, 16), np.uint8)
    checksums = [zlib.crc32(chunk.data)] * num_chunks
    if rows % 128:
        checksums[-1] = zlib.crc32(chunk[: rows % 128].data)
    with file.open_draft() as draft, measured("description of a store file", rows):
        draft.finish(sizes, checksums)
    with measured(f"verify a store file of {rows * 768 / 1e9:.2f} GB", rows):
        assert file.verify_and_load_sizes(128) is not None


def timed(name: str, call: Callable[[], Result], size: str = "") -> Result:
    """Print the seconds of a call, and the most memory that the process had until its end."""
    started = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{name:<52}{seconds:>10.2f}{peak:>12.1f}  {size}", flush=True)
    return result


def measure_classes(num_classes: int, count: int) -> None:
    """Print a table of what grows with the number of classes."""
    title = f"{num_classes:,} classes, {count:,} predictions"
    print(f"\n{title:<52}{'seconds':>10}{'GB at most':>12}")
    head = num_classes * (FEATURES + 1) * 4
    names = [f"class {number}" for number in range(num_classes)]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, num_classes, generator=generator)
    labels = torch.randint(num_classes, (count,), generator=generator)
    logits[torch.arange(count), labels] += 4

    network = torch.nn.Linear(FEATURES, num_classes)
    optimizer = torch.optim.AdamW(network.parameters())
    features = torch.randn(64, FEATURES)

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(network(features), labels[:64])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    timed("step of the head, batch 64", step, f"{4 * head / 1e6:,.0f} MB with AdamW and gradient")
    metrics = build_classification_metrics(num_classes)
    timed("metrics of a batch of 256", lambda: metrics.update(logits[:256], labels[:256]))
    size = f"{logits.nbytes / 1e6:,.0f} MB of logits"
    predictions = Predictions(
        ids=np.array([f"{number}.jpg" for number in range(count)]),
        labels=labels.numpy(),
        logits=logits.numpy(),
        classes=np.array(names),
        groups=np.full(count, ""),
        metadata=np.full(count, "{}"),
        sizes=np.zeros((count, 2), np.int32),
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "valid.npz"
        timed("write predictions", lambda: predictions.save(file), size)
        timed("read predictions", lambda: Predictions.load(file))
    evaluation = Evaluation.from_predictions("valid", predictions)
    timed("scores with intervals", lambda: evaluation.scores)
    page = timed("page of classes and confusions", lambda: render_page(evaluation))
    print(f"{'':<52}{'':>22}  {len(page) / 1e6:,.1f} MB of HTML")


def render_page(evaluation: Evaluation) -> str:
    """Return a page with the sections whose size depends on the classes."""
    preprocessing = Preprocessing(size=(64, 64), mean=(0, 0, 0), std=(1, 1, 1))
    thumbnails = Thumbnails("no images here", preprocessing)
    table = classes_table("Classes", evaluation.scores, None)
    matrix = confusion_matrix("Confusion matrix", evaluation, thumbnails)
    section = Section(key="classes", title="Classes", blocks=(table, matrix))
    return render(Report.from_sections("scaling", "", [section], thumbnails.urls))


if __name__ == "__main__":
    main()
