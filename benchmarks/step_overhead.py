"""Measure what the host does around each training step, which a fast GPU would wait for.

Command:  uv run python benchmarks/step_overhead.py    (about 1 minute on one core)
Expected: two rows with milliseconds per step: with every hook that Lightning calls, and without the
empty ones, as in the app, which takes about three quarters of the time.

The network is a single layer on a CPU whose step is launched as on a GPU, without the computation.
Figures are CPU milliseconds of the main thread per step, medians over epochs.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from composed_run import CONF
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback
from lightning.pytorch.profilers import PassThroughProfiler
from several_devices import random_split
from torch import Tensor, nn

from cls_data.loading.decoded_dataset import DecodedDataset
from cls_models.acceleration import cuda_graph
from cls_models.acceleration.replay import Replay
from cls_train.builders import (
    build_callbacks,
    build_data,
    build_module,
    build_preprocessing,
    build_trainer,
)
from cls_train.builders import trainer as trainer_builder
from cls_train.composition.config import RunConfig

BATCH_SIZE = 64
STEPS = 200
EPOCHS = 6
CLASSES = 100


class OneLayer(nn.Module):
    """Takes next to no time."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 [B, 3, H, W] to logits [B, C]."""
        return self.head(images.mean(dim=(2, 3)))


class MainThreadTime(Callback):
    """Record the CPU milliseconds of a step of the main thread in each epoch."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self._started = 0.0

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._started = time.thread_time()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock after the last batch."""
        if trainer.is_last_batch:
            seconds = time.thread_time() - self._started
            self.milliseconds.append(1000 * seconds / (batch_idx + 1))


def main() -> None:
    """Train with and without the empty hooks, and print both times."""
    torch.set_num_threads(1)
    cuda_graph.get_unsupported_reason = lambda *_: None
    Replay.__call__ = lambda self: None  # type: ignore[method-assign]
    with every_hook():
        every = measure()
    overridden = measure()
    print(f"every hook: {every:.2f} ms a step")
    print(f"overridden hooks only: {overridden:.2f} ms a step ({overridden / every:.0%})")


@contextmanager
def every_hook() -> Iterator[None]:
    """Let Lightning call all hooks of a step, each with a context manager of its own."""
    skip, profiler = trainer_builder.skip_empty_hooks, trainer_builder.NoProfiler
    trainer_builder.skip_empty_hooks = lambda callbacks: None
    trainer_builder.NoProfiler = PassThroughProfiler  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        trainer_builder.skip_empty_hooks, trainer_builder.NoProfiler = skip, profiler  # type: ignore[misc]


def measure() -> float:
    """Train with the default callbacks, and return milliseconds per step."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"trainer.max_epochs={EPOCHS}",
            "preprocessing.size=[48,32]",
            f"++data.batch_size={BATCH_SIZE}",
            "++data.gate=null",
            "augmentation=none",
            "callbacks.model_info=null",
            "callbacks.grad_cam=null",
            f"run.root={folder}",
            "run.name=run",
        ]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = RunConfig.from_hydra(compose("config", overrides))
        preprocessing = build_preprocessing(config)
        times = MainThreadTime()
        callbacks = [*build_callbacks(config).all, times]
        trainer = build_trainer(config, Path(folder) / "run", callbacks)
        data = build_data(config, preprocessing)
        splits = {
            "train": random_split("train", BATCH_SIZE * STEPS, preprocessing.size),
            "valid": random_split("valid", BATCH_SIZE, preprocessing.size),
        }
        indices = {f"{index:03d}": index for index in range(CLASSES)}
        data.use_decoded(DecodedDataset(data.config, splits, indices))
        module = build_module(config, data)
        module.backbone = OneLayer()
        trainer.fit(module, datamodule=data)
    return statistics.median(times.milliseconds[1:])


if __name__ == "__main__":
    main()
