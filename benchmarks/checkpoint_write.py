"""Measure how long a save at the end of an epoch holds training up, and where the time goes.

Command:  uv run python benchmarks/checkpoint_write.py    (about 2 minutes on two cores)
          uv run python benchmarks/checkpoint_write.py --device cuda
Expected: the training thread waits at least 10 times less for an asynchronous save. On a CPU, the
          steps after it are slower, because they share the cores with the thread that writes.

A ResNet-18 with EMA and AdamW, in the trainer: each save writes best.ckpt (180 MB), links last.ckpt
to it, and moves the older one to previous.ckpt. All figures are medians of one process.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from timing import time_in_turns
from torch import Tensor
from torch.nn import functional
from torchvision.models import resnet18

from cls_callbacks import EMA, AtomicCheckpointIO, BestAndLastCheckpoint
from cls_callbacks.checkpointing.checkpoint_capture import capture_checkpoint
from cls_callbacks.checkpointing.checkpoint_copies import CheckpointCopier
from cls_callbacks.checkpointing.checkpoint_files import (
    compute_checksum,
    duplicate_checkpoint,
    rename_checkpoint,
)
from cls_callbacks.trainer_access import get_run_paths

BATCHES = 10
"""Training steps in an epoch, which take longer than one write."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        measure = MeasureSaves(options.rounds)
        saves = AlternatingSaves()
        epochs = 2 * options.rounds + 2
        train(Path(folder), options, saves, measure, epochs=epochs)

    threads = f"{torch.get_num_threads()} CPU threads"
    device = torch.cuda.get_device_name() if options.device == "cuda" else threads
    print(f"ResNet-18, EMA, AdamW, batch {options.batch} of 64x64, {device}")
    print(f"checkpoint: {measure.megabytes:.0f} MB\n")
    synchronous = median(saves.waits[False])
    print(f"{'part of a save':<44}{'ms':>8}{'of a save':>11}")
    for name, seconds in measure.parts.items():
        print_row(name, seconds, synchronous)
    print()
    print(f"{'training thread at the end of an epoch':<44}{'ms':>8}{'ratio':>11}")
    print_row("synchronous", synchronous, synchronous)
    print_row("asynchronous", median(saves.waits[True]), synchronous)
    print()
    undisturbed = median(saves.epochs[False])
    print(f"{f'{BATCHES} training steps of the next epoch':<44}{'ms':>8}{'ratio':>11}")
    print_row("nothing is written", undisturbed, undisturbed)
    print_row("while the thread writes", median(saves.epochs[True]), undisturbed)


class AlternatingSaves(BestAndLastCheckpoint):
    """Time what each save takes from the training thread, and the steps after it.

    Every epoch is better than the one before. Every second save is asynchronous, so that a busy
    moment of the machine affects both kinds alike.

    Attributes:
        waits: Seconds of each save, by whether it was asynchronous.
        epochs: Seconds of the training steps of the epochs after these saves.
    """

    def __init__(self) -> None:
        super().__init__("epoch", asynchronous=True)
        self.waits: dict[bool, list[float]] = {False: [], True: []}
        self.epochs: dict[bool, list[float]] = {False: [], True: []}
        self._started = 0.0
        self._writer: CheckpointCopier | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock after the last batch."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.is_last_batch:
            synchronize(pl_module.device)
            is_after_asynchronous = trainer.current_epoch % 2 == 0
            self.epochs[is_after_asynchronous].append(time.perf_counter() - self._started)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time the save."""
        self._writer = self._writer or self._copier
        is_asynchronous = trainer.current_epoch % 2 == 1
        self._copier = self._writer if is_asynchronous else None
        synchronize(pl_module.device)
        started = time.perf_counter()
        super().on_train_epoch_end(trainer, pl_module)
        self.waits[is_asynchronous].append(time.perf_counter() - started)


class MeasureSaves(Callback):
    """Measure the parts of a save after the last epoch.

    Attributes:
        parts: Seconds of each.
        megabytes: Size of the checkpoint.
    """

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.parts: dict[str, float] = {}
        self.megabytes = 0.0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure."""
        run = get_run_paths(trainer)
        scratch = run.checkpoints / "scratch.ckpt"
        checkpoint: dict[str, Any] = {}
        copier = CheckpointCopier()

        def capture() -> None:
            checkpoint.update(capture_checkpoint(trainer) or {})

        def copy() -> None:
            copier.copy(checkpoint).load()

        def copy_to_new_memory() -> None:
            CheckpointCopier().copy(checkpoint).load()

        def serialize() -> None:
            torch.save(checkpoint, Discard())  # type: ignore[arg-type]

        def write() -> None:
            torch.save(checkpoint, scratch)

        def flush() -> None:
            with scratch.open("rb") as stream:
                os.fsync(stream.fileno())

        def rename() -> None:
            duplicate_checkpoint(run.best, run.next)
            rename_checkpoint(run.last, run.previous)
            rename_checkpoint(run.next, run.last)

        def save() -> None:
            AtomicCheckpointIO().save_checkpoint(checkpoint, scratch)

        parts: dict[str, Callable[[], None]] = {
            "collect the state (dump_checkpoint)": capture,
            "copy it to host memory": copy,
            "copy it to new host memory": copy_to_new_memory,
            "serialize it, without a file": serialize,
            "serialize it to a file": write,
            "flush the file (fsync)": flush,
            "read the file for its SHA-256": lambda: discard(compute_checksum(scratch)),
            "link and rename, with checksums": rename,
            "write atomically with a checksum": save,
        }
        durations = time_in_turns(list(parts.values()), rounds=self.rounds)
        self.parts = {
            name: statistics.median(seconds) for name, seconds in zip(parts, durations, strict=True)
        }
        self.megabytes = run.best.stat().st_size / 1e6


class Discard:
    """A file that keeps nothing."""

    def write(self, data: bytes | memoryview) -> int:
        """Do nothing."""
        return len(data)

    def flush(self) -> None:
        """Do nothing."""


class Network(LightningModule):
    """A ResNet-18 that logs the number of the epoch as its score."""

    def __init__(self) -> None:
        super().__init__()
        self.network = resnet18(num_classes=43)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss."""
        images, labels = batch
        return functional.cross_entropy(self.network(images), labels)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the number of the epoch."""
        self.log("epoch", float(self.current_epoch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def train(folder: Path, options: argparse.Namespace, *callbacks: Callback, epochs: int) -> None:
    """Train some epochs on random images."""
    images = torch.randn(options.batch * BATCHES, 3, 64, 64)
    labels = torch.randint(43, (len(images),))
    rows = torch.utils.data.TensorDataset(images, labels)
    loader: Any = torch.utils.data.DataLoader(rows, batch_size=options.batch)
    valid: Any = torch.utils.data.DataLoader(
        torch.utils.data.Subset(rows, range(options.batch)), batch_size=options.batch
    )
    Trainer(
        accelerator="gpu" if options.device == "cuda" else "cpu",
        devices=1,
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        plugins=[AtomicCheckpointIO()],
        callbacks=[EMA(), *callbacks],
    ).fit(Network(), loader, valid)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def median(seconds: list[float]) -> float:
    """Return the median without the first epoch, which allocates memory."""
    return statistics.median(seconds[1:])


def print_row(name: str, seconds: float, whole: float) -> None:
    """Print one figure and its ratio to another one."""
    print(f"{name:<44}{seconds * 1e3:>8.1f}{seconds / whole:>11.2f}")


def discard(value: object) -> None:
    """Ignore a value."""


if __name__ == "__main__":
    main()
