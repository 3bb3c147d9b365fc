"""Compare the trainer's step on a GPU with the fastest possible one, and with the plain loop.

Command:  uv run python benchmarks/gpu.py              (about 4 minutes on one H100)
          uv run python benchmarks/gpu.py --cases 48x32x64 224x224x256 --epochs 4
          uv run python benchmarks/gpu.py --cpu --cases 16x16x8 --steps 12   (only tries the script)
Expected: one row a case. Goals on an H100 or H200: the step at most 1.25 times the bound for
48x32x64, 1.15 times for 32x32x256, 64x64x256, and 96x96x128, and 1.05 times for 224x224x256; at
most 0.1 s between epochs; memory at most 1.3 times that of the plain loop.

Each case trains a ResNet-18 on random pixels with the default callbacks and the light augmentation,
first as the app does, then with `acceleration=off`. Then the same network, loss, and optimizer take
steps on one fixed batch, each a single CUDA graph: the bound. Steps are medians over epochs;
`between` is the time from an epoch's last step to the next one's first, without validation steps.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from composed_run import CONF
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback
from several_devices import CLASSES, random_split
from torch import Tensor, nn

from cls_data import ClassificationDataModule
from cls_data.loading.decoded_dataset import DecodedDataset
from cls_models import build_optimizer
from cls_train.builders import (
    build_callbacks,
    build_data,
    build_module,
    build_preprocessing,
    build_trainer,
    optimize_for_device,
)
from cls_train.composition.config import RunConfig
from cls_train.logs import configure_logging
from cls_train.process import shorten_spinning

CASES = ("48x32x64", "32x32x256", "64x64x256", "96x96x128", "224x224x256")
"""Height, width, and batch size."""

VALIDATION_ROWS = 1024
BOUND_STEPS = 100
WARM_UP_STEPS = 5
WARM_UP_EPOCHS = 2


@dataclass(frozen=True)
class Measurement:
    """One training: seconds per step and between epochs, and peak memory in bytes."""

    step: float
    between: float
    memory: int


class EpochTimes(Callback):
    """Record how long steps take, and how long it takes from one epoch to the next.

    Attributes:
        steps: Mean seconds per step of each epoch.
        betweens: Seconds between two epochs, without validation steps.
    """

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.betweens: list[float] = []
        self._first_step_ended = 0.0
        self._epoch_ended: float | None = None
        self._validation_started = 0.0
        self._validated = 0.0

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the time between epochs."""
        if batch_idx == 0 and self._epoch_ended is not None:
            now = time.perf_counter()
            self.betweens.append(now - self._epoch_ended - self._validated)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock after the first step of an epoch, and stop it after the last."""
        if batch_idx == 0:
            self._first_step_ended = synchronized_time(pl_module.device)
        elif trainer.is_last_batch:
            self._epoch_ended = synchronized_time(pl_module.device)
            self._validated = 0.0
            self.steps.append((self._epoch_ended - self._first_step_ended) / batch_idx)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Start the clock of a validation step."""
        self._validation_started = synchronized_time(pl_module.device)

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Stop it."""
        self._validated += synchronized_time(pl_module.device) - self._validation_started


def main() -> None:
    """Measure all cases, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="HxWxB")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, help="steps of an epoch; by default 60 to 200")
    parser.add_argument("--cpu", action="store_true", help="try the script without a GPU")
    parser.add_argument("--overrides", nargs="*", default=[], help="more settings of the app")
    options = parser.parse_args()
    shorten_spinning()
    configure_logging()
    device = torch.device("cpu" if options.cpu else "cuda", 0)
    name = "CPU" if options.cpu else torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}")
    columns = ("case", "bound ms", "step ms", "ratio", "plain ms", "ratio", "between s", "memory")
    print("".join(f"{column:>12}" for column in columns), flush=True)
    for case in options.cases:
        height, width, batch = (int(number) for number in case.split("x"))
        steps = options.steps or (60 if height >= 224 else 200)
        measure = Case((height, width), batch, steps, options.epochs, device, options.overrides)
        fast = measure.train("auto")
        plain = measure.train("off")
        bound = measure.time_bound()
        cells = (
            f"{1000 * bound:.2f}",
            f"{1000 * fast.step:.2f}",
            f"{fast.step / bound:.2f}",
            f"{1000 * plain.step:.2f}",
            f"{plain.step / bound:.2f}",
            f"{fast.between:.3f}",
            f"{fast.memory / max(1, plain.memory):.2f}",
        )
        print(f"{case:>12}" + "".join(f"{cell:>12}" for cell in cells), flush=True)


@dataclass(frozen=True)
class Case:
    """Images of one size in batches of one size."""

    size: tuple[int, int]
    batch_size: int
    steps: int
    epochs: int
    device: torch.device
    overrides: list[str]

    def train(self, acceleration: str) -> Measurement:
        """Train as the app does."""
        with tempfile.TemporaryDirectory() as folder:
            config = self._compose(folder, f"acceleration={acceleration}")
            times = EpochTimes()
            callbacks = [*build_callbacks(config).all, times]
            trainer = build_trainer(config, Path(folder) / "run", callbacks)
            data = self._build_data(config)
            module = build_module(config, data)
            optimize_for_device(module, trainer)
            reset_peak_memory(self.device)
            trainer.fit(module, datamodule=data)
        return Measurement(
            statistics.median(times.steps[WARM_UP_EPOCHS:]),
            statistics.median(times.betweens[1:]),
            get_peak_memory(self.device),
        )

    def time_bound(self) -> float:
        """Return the seconds of a step on a fixed batch, launched at once."""
        with tempfile.TemporaryDirectory() as folder:
            config = self._compose(folder)
            trainer = build_trainer(config, Path(folder) / "run", [])
            data = self._build_data(config)
            module = build_module(config, data)
            optimize_for_device(module, trainer)
        network = module.backbone.to(self.device).train()
        loss = module.loss.to(self.device)
        factory: Any = module._optimizer
        optimizer = build_optimizer(factory, network, fused=True)
        for group in optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = self.device.type == "cuda"
        images = torch.randn(self.batch_size, 3, *self.size, device=self.device)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.arange(self.batch_size, device=self.device) % CLASSES
        clip = trainer.gradient_clip_val

        def step() -> None:
            optimizer.zero_grad()
            with trainer.precision_plugin.forward_context(), no_autocast_cache(self.device):
                value: Tensor = loss(network(images), labels)
            value.backward()
            if clip:
                nn.utils.clip_grad_norm_(network.parameters(), clip)
            type(optimizer).step(optimizer)

        return time_steps(capture(step, self.device), self.device)

    def _build_data(self, config: RunConfig) -> ClassificationDataModule:
        data = build_data(config, build_preprocessing(config))
        splits = {
            "train": random_split("train", self.steps * self.batch_size, self.size),
            "valid": random_split("valid", VALIDATION_ROWS, self.size),
        }
        indices = {f"{index:03d}": index for index in range(CLASSES)}
        data.use_decoded(DecodedDataset(data.config, splits, indices))
        return data

    def _compose(self, folder: str, *more: str) -> RunConfig:
        overrides = [
            f"trainer={'cpu' if self.device.type == 'cpu' else 'gpu'}",
            f"trainer.max_epochs={self.epochs}",
            f"preprocessing.size=[{self.size[0]},{self.size[1]}]",
            f"++data.batch_size={self.batch_size}",
            "++data.gate=null",
            f"run.root={folder}",
            "run.name=run",
            *more,
            *self.overrides,
        ]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return RunConfig.from_hydra(compose("config", overrides))


def capture(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return a function that launches the step as one CUDA graph; on a CPU, the step itself."""
    if device.type == "cpu":
        return step
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_STEPS):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def no_autocast_cache(device: torch.device) -> Any:
    """Let autocast cast each weight at each step, as a graph must."""
    return torch.autocast(
        device.type,
        dtype=torch.get_autocast_dtype(device.type),
        enabled=torch.is_autocast_enabled(device.type),
        cache_enabled=False,
    )


def time_steps(step: Callable[[], None], device: torch.device) -> float:
    """Return the median seconds of a step over five rounds."""
    rounds = []
    steps = 3 if device.type == "cpu" else BOUND_STEPS
    for _ in range(6):
        started = synchronized_time(device)
        for _ in range(steps):
            step()
        rounds.append((synchronized_time(device) - started) / steps)
    return statistics.median(rounds[1:])


def synchronized_time(device: torch.device) -> float:
    """Return the time after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def reset_peak_memory(device: torch.device) -> None:
    """Forget the memory of the case before."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def get_peak_memory(device: torch.device) -> int:
    """Return the largest number of bytes that were reserved on the device; 0 for a CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


if __name__ == "__main__":
    main()
