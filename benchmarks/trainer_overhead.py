"""Compare the app's training speed with a bare PyTorch loop.

Command:  uv run python benchmarks/trainer_overhead.py    (about 3 minutes on two cores)
          uv run python benchmarks/trainer_overhead.py --trainer gpu --batch 256
Expected: one row with images/s of both and the overhead; at most 5% at 64 px on two cores.

After each epoch, a copy of the network takes as many steps with the same optimizer on random
tensors. The figures are medians over the epochs.
"""

import argparse
import copy
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from composed_run import compose_run
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional

from cls_data import keep_freed_memory
from cls_models import build_optimizer
from cls_train.logs import configure_logging

CLASSES = 12
TRAINING_ROWS = {"cpu": 1_440, "gpu": 24_000}
"""Enough steps that the start of an epoch weighs no more than in a real training."""

WARM_UP_STEPS = 3


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainer", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--augmentation", default="light")
    parser.add_argument("--size", type=int, default=64, metavar="PIXELS")
    options = parser.parse_args()
    configure_logging()
    keep_freed_memory()
    comparison = BareLoopComparison()
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"trainer={options.trainer}",
            f"trainer.max_epochs={options.epochs}",
            f"++data.batch_size={options.batch}",
            f"++data.synthetic.train={TRAINING_ROWS[options.trainer] // CLASSES}",
            f"data.root={folder}/data",
            "data.gate=null",
            f"augmentation={options.augmentation}",
            f"preprocessing.size=[{options.size},{options.size}]",
            "seed=1",
        ]
        compose_run(overrides, Path(folder) / "run", extra_callbacks=[comparison]).fit()
    ours = statistics.median(comparison.trainer_speeds[1:])
    bare = statistics.median(comparison.bare_speeds[1:])
    if options.trainer == "gpu":
        device = torch.cuda.get_device_name()
    else:
        device = f"{torch.get_num_threads()} CPU threads"
    pixels = f"{options.size}x{options.size}"
    print(f"{'device':<24}{'batch':>7}{'pixels':>9}{'trainer':>10}{'bare':>10}{'overhead':>10}")
    overhead = bare / ours - 1
    print(f"{device:<24}{options.batch:>7}{pixels:>9}{ours:>10.0f}{bare:>10.0f}{overhead:>10.1%}")


class BareLoopComparison(Callback):
    """Times each epoch, and then as many bare steps of a copy of the network.

    Attributes:
        trainer_speeds: Images per second of each epoch.
        bare_speeds: Images per second of the bare steps after each epoch.
    """

    def __init__(self) -> None:
        self.trainer_speeds: list[float] = []
        self.bare_speeds: list[float] = []
        self._started = 0.0
        self._images = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        synchronize(pl_module.device)
        self._started = time.perf_counter()
        self._images = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock after the last batch, before the validation."""
        self._images += len(batch["labels"])
        if not trainer.is_last_batch:
            return
        synchronize(pl_module.device)
        self.trainer_speeds.append(self._images / (time.perf_counter() - self._started))
        images = torch.randn_like(batch["images"])
        seconds = time_bare_steps(trainer, pl_module, images, batch["labels"], batch_idx + 1)
        self.bare_speeds.append((batch_idx + 1) * len(images) / seconds)


def time_bare_steps(
    trainer: Trainer, module: Any, images: Tensor, labels: Tensor, steps: int
) -> float:
    """Return the seconds of some training steps with nothing around them."""
    network: nn.Module = copy.deepcopy(module.backbone).train()
    trainer_optimizer = trainer.optimizers[0]
    factory: Callable[..., torch.optim.Optimizer] = functools.partial(
        type(trainer_optimizer), lr=1e-3
    )
    fused = bool(trainer_optimizer.defaults.get("fused"))
    optimizer = build_optimizer(factory, network, fused=fused)
    precision = trainer.precision_plugin
    scaler = None
    if getattr(precision, "scaler", None) is not None:
        scaler = torch.amp.GradScaler("cuda")
    started = 0.0
    for step in range(-WARM_UP_STEPS, steps):
        if step == 0:
            synchronize(images.device)
            started = time.perf_counter()
        optimizer.zero_grad()
        with precision.forward_context():
            loss = functional.cross_entropy(network(images), labels, label_smoothing=0.1)
        if scaler is None:
            loss.backward()
        else:
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
        if trainer.gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(network.parameters(), trainer.gradient_clip_val)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
    synchronize(images.device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
