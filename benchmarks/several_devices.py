"""Compare the training speed of one device with that of several.

Command:  uv run python benchmarks/several_devices.py --counts 1 2 4      (on a machine with 4 GPUs)
          uv run python benchmarks/several_devices.py --cpu --counts 1 2 --rows 600 --per-device 32
Expected: for each network and image size, images per second and device of each count, and the
          efficiency: this figure divided by that of one device. On 4 GPUs of one host with 256
          images each: at least 90% for ResNet-18 at 224 px, 80% at 64 px, 92% for ResNet-50.

Measures the whole trainer of the app, with its callbacks and device-side augmentation, on random
pixels. An epoch has the same number of steps on any number of devices. Figures are medians over the
epochs after the first two.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from composed_run import CONF
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, LightningModule, Trainer

from cls_callbacks import ImageThroughputMonitor
from cls_data.annotations.reading import Record
from cls_data.images.store import ImageStore, PixelRows
from cls_data.loading.decoded_dataset import DecodedDataset, DecodedSplit
from cls_models import CudaGraphCallback
from cls_train.builders import (
    build_callbacks,
    build_data,
    build_module,
    build_preprocessing,
    build_trainer,
    optimize_for_device,
)
from cls_train.composition.config import RunConfig
from cls_train.distributed.environment import ProcessRank, read_process_rank
from cls_train.distributed.launch import launch
from cls_train.distributed.ranks import Ranks, set_ranks
from cls_train.distributed.settings import adapt_to_ranks
from cls_train.logs import configure_logging
from cls_train.process import shorten_spinning

CLASSES = 100
CASES = (("resnet18", 224), ("resnet18", 64), ("resnet50", 224))
WARM_UP_EPOCHS = 2


def main() -> None:
    """Measure each count in processes of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--per-device", type=int, default=256)
    parser.add_argument(
        "--rows", type=int, default=12_288, help="training images of 224 px per device"
    )
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--graph", action="store_true", help="CUDA graphs on one device")
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.results is not None:
        measure_cases(options)
        return

    shorten_spinning()  # as the app does; the processes inherit it
    with tempfile.TemporaryDirectory() as folder:
        speeds = {}
        for count in options.counts:
            results = Path(folder) / f"{count}.json"
            code = launch([*sys.argv, "--results", str(results)], count)
            if code != 0:
                sys.exit(code)
            speeds[count] = json.loads(results.read_text())
            print_table(speeds)


def print_table(speeds: dict[int, dict[str, float]]) -> None:
    """Print images per second and device, and the efficiency."""
    counts = sorted(speeds)
    base = speeds[counts[0]]
    header = "".join(f"{f'{count} device(s)':>22}" for count in counts)
    print(f"{'images/s per device':<22}{header}")
    for case in base:
        cells = ""
        for count in counts:
            speed = speeds[count].get(case)
            cell = "" if speed is None else f"{speed:.0f} ({speed / base[case]:.1%})"
            cells += f"{cell:>22}"
        print(f"{case:<22}{cells}", flush=True)


def measure_cases(options: argparse.Namespace) -> None:
    """Measure all cases as one of several processes; the first one writes the results."""
    process = read_process_rank() or ProcessRank(0, 1, 0, 1)
    configure_logging(is_first=process.rank == 0)
    device = torch.device("cpu") if options.cpu else torch.device("cuda", process.local_rank)
    ranks = Ranks(process)
    set_ranks(ranks)
    ranks.connect(device)
    speeds = {}
    for network, size in CASES:
        if options.cpu and size > 64:
            continue
        speeds[f"{network} {size} px"] = measure(network, size, options, ranks)
        if options.graph and ranks.count == 1 and size == 64:
            name = f"{network} {size} px, CUDA graph"
            speeds[name] = measure(network, size, options, ranks, with_graph=True)
        if ranks.is_first:
            options.results.write_text(json.dumps(speeds))
    ranks.disconnect()


def measure(
    network: str,
    size: int,
    options: argparse.Namespace,
    ranks: Ranks,
    *,
    with_graph: bool = False,
) -> float:
    """Train, and return the images per second and device."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"trainer={'cpu' if options.cpu else 'ddp'}",
            "++trainer.strategy=ddp",
            f"trainer.max_epochs={options.epochs}",
            f"model={network}",
            f"preprocessing.size=[{size},{size}]",
            f"+data.batch_size_per_device={options.per_device}",
            "+data.store=null",
            "++data.gate=null",
            "stages.evaluate=false",
            "logger=csv",
            f"run.root={folder}",
            "run.name=run",
        ]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = RunConfig.from_hydra(compose("config", overrides))
        config = adapt_to_ranks(config, ranks)
        rows = options.rows * (224 * 224) // (size * size) // 4 if size < 224 else options.rows
        speeds = train(config, rows * ranks.count, ranks, with_graph=with_graph)
    return statistics.median(speeds[WARM_UP_EPOCHS:]) / ranks.count


def train(config: RunConfig, rows: int, ranks: Ranks, *, with_graph: bool) -> list[float]:
    """Train on random pixels as the app does, and return the images per second of each epoch."""
    preprocessing = build_preprocessing(config)
    callbacks = build_callbacks(config).all
    if not with_graph:  # several devices cannot use one
        callbacks = [each for each in callbacks if not isinstance(each, CudaGraphCallback)]
    speeds = EpochSpeeds()
    folder = config.run.root / "run"
    trainer = build_trainer(config, folder, [*callbacks, speeds], ranks.process)
    data = build_data(config, preprocessing)
    splits = {
        "train": random_split("train", rows, preprocessing.size),
        "valid": random_split("valid", 64 * ranks.count, preprocessing.size),
    }
    indices = {f"{index:03d}": index for index in range(CLASSES)}
    data.use_decoded(DecodedDataset(data.config, splits, indices))
    module = build_module(config, data)
    optimize_for_device(module, trainer)
    trainer.fit(module, datamodule=data)
    return speeds.speeds


def random_split(name: str, rows: int, size: tuple[int, int]) -> DecodedSplit:
    """Return random pixels; each process has its own copy, of the same values."""
    generator = torch.Generator().manual_seed(rows)
    block = torch.randint(0, 256, (64, 3, *size), generator=generator, dtype=torch.uint8)
    repeats = -(-rows // len(block))
    pixels = block.repeat(repeats, 1, 1, 1)[:rows]
    labels = torch.arange(rows) % CLASSES
    records = []
    for row in range(rows):
        label = f"{row % CLASSES:03d}"
        image = f"{name}/{row}.png"
        records.append(Record(image, "/random", label, None, {}, source=image))
    sizes = np.full((rows, 2), size[::-1], np.int64)
    store = ImageStore(PixelRows(pixels), sizes, [b""] * rows)
    return DecodedSplit(records, store, labels)


class EpochSpeeds(Callback):
    """Record the throughput of each epoch."""

    def __init__(self) -> None:
        self.speeds: list[float] = []
        self._images = 0
        self._seconds = 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Subtract the totals of the epochs before."""
        for callback in trainer.callbacks:
            if isinstance(callback, ImageThroughputMonitor):
                images = callback.images - self._images
                seconds = callback.seconds - self._seconds
                self.speeds.append(images / seconds)
                self._images = callback.images
                self._seconds = callback.seconds


if __name__ == "__main__":
    main()
