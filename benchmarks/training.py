"""What training costs and what it reaches: the trainer beside a bare loop, and a recipe beside timm's train.py.

Commands: uv run python benchmarks/training.py overhead                       (about 3 minutes on two cores)
          uv run python benchmarks/training.py observers                      (about 4 minutes on two cores)
          uv run python benchmarks/training.py layouts                        (about 2 minutes on two cores)
          uv run python benchmarks/training.py small-maps                     (about 1 minute on two cores)
          uv run --with timm==1.0.31 python benchmarks/training.py recipe ROOT --quarantine FILE --seeds 1 2 3
Expected: tables; the last one has a row for timm and one for each seed, with top-1 and its 95 % Wilson interval.

`overhead` trains through the app, and after every epoch steps a copy of the same network with the same optimizer on
random tensors in memory; medians over the epochs. On a GPU: --trainer gpu --batch 256.
`observers` trains the default run and counts the seconds within each callback's hooks; medians of the runs.
`layouts` compares a ResNet-18 as torchvision makes it with the same one prepared for the device, in turns.
`small-maps` compares single convolutions with the products that they train as, batch 64, in turns.
`recipe` runs both programs one after the other, on the same rows and the same threads. timm's train.py is not in its
package: without --timm-script, its repository is cloned at the tag of the installed version.
"""

import argparse
import copy
import csv
import functools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn import functional

from cls_data import Quarantine, keep_freed_memory, read_split
from cls_models import build_backbone, build_optimizer, prepare_for_device, replace_small_convs
from cls_report.statistics.intervals import wilson
from cls_train.composition.builders import (
    build_callbacks,
    build_data,
    build_module,
    build_preprocessing,
    build_trainer,
    speed_up,
)
from cls_train.composition.config import RunConfig
from cls_train.composition.resolve_preprocessing import resolve_model_input
from cls_train.logs import set_up_logs

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 15


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Benchmarks of training.")
    commands = parser.add_subparsers(dest="command", required=True)
    overhead_of = commands.add_parser("overhead")
    overhead_of.add_argument("--trainer", choices=("cpu", "gpu"), default="cpu")
    overhead_of.add_argument("--batch", type=int, default=64)
    overhead_of.add_argument("--epochs", type=int, default=7)
    overhead_of.add_argument("--augmentation", default="light")
    overhead_of.add_argument("--size", type=int, default=64, metavar="PIXELS")
    observers_of = commands.add_parser("observers")
    observers_of.add_argument("--epochs", type=int, default=7)
    observers_of.add_argument("--rounds", type=int, default=3)
    commands.add_parser("layouts")
    commands.add_parser("small-maps")
    recipe_of = commands.add_parser("recipe")
    recipe_of.add_argument("root", type=Path)
    recipe_of.add_argument("--quarantine", type=Path)
    recipe_of.add_argument("--seeds", type=int, nargs="*", default=[1])
    recipe_of.add_argument("--experiment", default="jersey_numbers")
    recipe_of.add_argument("--timm-script", type=Path)
    recipe_of.add_argument("--without-timm", action="store_true")
    options = parser.parse_args()
    if options.command == "overhead":
        overhead(options.trainer, options.batch, options.epochs, options.augmentation, options.size)
    elif options.command == "observers":
        observers(options.epochs, options.rounds)
    elif options.command == "layouts":
        layouts()
    elif options.command == "small-maps":
        small_maps()
    else:
        recipe(options)


def overhead(trainer: str, batch: int, epochs: int, augmentation: str, size: int) -> None:
    """Print images/s of the app's training and of a bare loop, and their ratio."""
    set_up_logs()
    keep_freed_memory()
    classes, rows = (
        (12, 1440) if trainer == "cpu" else (12, 24_000)
    )  # an epoch's start counts as in a real one
    overrides = [
        f"trainer={trainer}",
        f"++data.batch_size={batch}",
        f"trainer.max_epochs={epochs}",
        "seed=1",
        f"augmentation={augmentation}",
        f"++data.synthetic.train={rows // classes}",
        "data.gate=null",
        f"preprocessing.size=[{size},{size}]",
    ]
    with tempfile.TemporaryDirectory() as folder:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            composed = compose(
                "config", [*overrides, f"data.root={folder}/data", f"run.root={folder}/runs"]
            )
        config = resolve_model_input(RunConfig.from_hydra(composed))
        preprocessing, callbacks = build_preprocessing(config), build_callbacks(config)
        beside = BesideABareLoop()
        made = build_trainer(config, Path(folder) / "run", [*callbacks.all, beside], logging=True)
        data = build_data(config, preprocessing)
        data.prepare_data()
        data.setup()
        module = build_module(config, data)
        speed_up(module, made)
        made.fit(module, datamodule=data)
    whole, bare = statistics.median(beside.whole[1:]), statistics.median(beside.bare[1:])
    print(
        f"{'device':<24}{'batch':>7}{'pixels':>9}{'trainer img/s':>15}{'bare loop img/s':>17}{'overhead':>10}"
    )
    name = (
        torch.cuda.get_device_name()
        if trainer == "gpu"
        else f"{torch.get_num_threads()} CPU threads"
    )
    print(
        f"{name:<24}{batch:>7}{f'{size}x{size}':>9}{whole:>15.0f}{bare:>17.0f}{bare / whole - 1:>10.1%}"
    )


class BesideABareLoop(Callback):
    """After each epoch, steps a copy of the network as often, on random tensors, with nothing around it."""

    def __init__(self) -> None:
        self.whole: list[float] = []
        self.bare: list[float] = []
        self._started = 0.0
        self._images = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        _wait(pl_module.device)
        self._started, self._images = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock behind the last batch, before the validation."""
        self._images += len(batch["labels"])
        if trainer.is_last_batch:
            _wait(pl_module.device)
            self.whole.append(self._images / (time.perf_counter() - self._started))
            self.bare.append(
                self._bare(trainer, pl_module, batch["images"], batch["labels"], batch_idx + 1)
            )

    def _bare(
        self, trainer: Trainer, module: Any, images: torch.Tensor, labels: torch.Tensor, steps: int
    ) -> float:
        recorded = vars(module.backbone).pop(
            "forward", None
        )  # a graph's, if there is one: it steps the original
        network = copy.deepcopy(module.backbone).train()
        if recorded is not None:
            module.backbone.forward = recorded
        theirs = trainer.optimizers[0]
        kind: Callable[..., torch.optim.Optimizer] = functools.partial(type(theirs), lr=1e-3)
        optimizer = build_optimizer(kind, network, fused=bool(theirs.defaults.get("fused")))
        images = torch.randn_like(images)
        precision = trainer.precision_plugin
        scaler = getattr(precision, "scaler", None)
        scaler = torch.amp.GradScaler("cuda") if scaler is not None else None
        clip = trainer.gradient_clip_val
        started = 0.0
        for step in range(-3, steps):
            if step == 0:
                _wait(images.device)
                started = time.perf_counter()
            optimizer.zero_grad()
            with precision.forward_context():
                loss = functional.cross_entropy(network(images), labels, label_smoothing=0.1)
            if scaler is None:
                loss.backward()
            else:
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
            if clip:
                torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
        _wait(images.device)
        return steps * len(images) / (time.perf_counter() - started)


def observers(epochs: int, rounds: int) -> None:
    """Print seconds that each callback of the default run takes of its fit, and what those that only look on cost.

    Runs with and without them differ by more than they cost, on a machine that is never quite idle; so the time within
    their hooks is counted. On a CPU nothing of it goes on behind.
    """
    set_up_logs()
    keep_freed_memory()
    shares: list[float] = []
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            settings = [f"trainer.max_epochs={epochs}", "seed=1", f"data.root={folder}/data"]
            whole, by_callback = _seconds_of_fit(settings, Path(folder) / str(turn))
            looking_on = sum(
                seconds for name, seconds in by_callback.items() if name not in AT_WORK
            )
            shares.append(looking_on / (whole - looking_on))
            for name, seconds in by_callback.items():
                taken.setdefault(name, []).append(seconds / whole)
    print(f"{'callback':<28}{'of the fit':>12}")
    for name, values in sorted(taken.items(), key=lambda item: -statistics.median(item[1])):
        print(
            f"{name:<28}{statistics.median(values):>12.2%}{'  (no observer)' if name in AT_WORK else ''}"
        )
    print(f"the observers cost {statistics.median(shares):.2%} of {epochs} epochs")


AT_WORK = ("EMA", "BestAndLastCheckpoint", "PreemptionCheckpoint")
"""Callbacks that a training is not the same without."""


def _seconds_of_fit(overrides: Sequence[str], folder: Path) -> tuple[float, dict[str, float]]:
    """Return the seconds of a fit, and of these the seconds in each callback's hooks."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = resolve_model_input(
            RunConfig.from_hydra(compose("config", [*overrides, f"run.root={folder}"]))
        )
    preprocessing, callbacks = build_preprocessing(config), build_callbacks(config)
    trainer = build_trainer(config, folder / "run", callbacks.all, logging=True)
    data = build_data(config, preprocessing)
    data.prepare_data()
    data.setup()
    module = build_module(config, data)
    speed_up(module, trainer)
    taken: dict[str, float] = {}
    for callback in callbacks.all:
        _time_hooks(callback, taken)
    started = time.perf_counter()
    trainer.fit(module, datamodule=data)
    return time.perf_counter() - started, taken


def _time_hooks(callback: Callback, taken: dict[str, float]) -> None:
    name = type(callback).__name__
    taken[name] = 0.0
    for hook in [
        each for each in dir(callback) if each.startswith("on_") or each in ("setup", "teardown")
    ]:
        method = getattr(callback, hook)
        if callable(method):
            setattr(callback, hook, _timed(method, name, taken))


def _timed(method: Callable[..., Any], name: str, taken: dict[str, float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            taken[name] += time.perf_counter() - started

    return timed


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def layouts(rounds: int = 9) -> None:
    """Print images/s of training steps of a ResNet-18 on this CPU, as it is and prepared."""
    keep_freed_memory()
    print(
        f"{'input':<12}{'batch':>6}{'as it is':>10}{'channels-last':>15}{'prepared':>10}{'ratio':>8}"
    )
    for height, width, batch in (
        (64, 32, 128),
        (48, 32, 128),
        (64, 48, 128),
        (64, 64, 64),
        (64, 64, 128),
    ):
        images, labels = torch.randn(batch, 3, height, width), torch.randint(0, 42, (batch,))
        candidates: list[tuple[nn.Module, torch.optim.Optimizer, list[float]]] = []
        for kind in ("as it is", "channels-last", "prepared"):
            network = build_backbone("resnet18", 42, image_size=(height, width), stem="standard")
            if kind == "channels-last":
                network.to(memory_format=torch.channels_last)
            elif kind == "prepared":
                prepare_for_device(network, "cpu")
            sgd = functools.partial(
                torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True, fused=True
            )
            optimizer = (
                build_optimizer(sgd, network) if kind == "prepared" else sgd(network.parameters())
            )
            candidates.append((network, optimizer, []))
        for _ in range(rounds + 1):
            for network, optimizer, seconds in candidates:
                started = time.perf_counter()
                optimizer.zero_grad()
                functional.cross_entropy(network(images), labels).backward()
                optimizer.step()
                seconds.append(time.perf_counter() - started)
        speeds = [batch / statistics.median(seconds[1:]) for _, _, seconds in candidates]
        name = f"{height} x {width}"
        print(
            f"{name:<12}{batch:>6}{speeds[0]:>10.0f}{speeds[1]:>15.0f}{speeds[2]:>10.0f}{speeds[2] / speeds[0]:>8.2f}"
        )


def small_maps(rounds: int = 25) -> None:
    """Print milliseconds of a layer's forward and backward pass, by torch and as products; 1.00 where it is torch's."""
    keep_freed_memory()
    print(
        f"{'kernel':<8}{'channels':>12}{'map':>8}{'stride':>8}{'torch':>8}{'products':>10}{'ratio':>8}"
    )
    layers = [
        (3, 512, 512, 2, 1, 1),
        (3, 256, 512, 3, 2, 2),
        (3, 256, 256, 3, 2, 1),
        (3, 128, 256, 6, 4, 2),
        (3, 256, 256, 4, 3, 1),
        (3, 256, 256, 4, 4, 1),
        (3, 512, 512, 4, 4, 1),
        (3, 128, 128, 3, 2, 1),
        (1, 256, 512, 3, 2, 2),
        (1, 128, 256, 6, 4, 2),
        (1, 1024, 256, 4, 4, 1),
        (3, 64, 64, 2, 2, 1),
    ]
    for kernel, inputs, outputs, height, width, stride in layers:
        plain = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False).to(
            memory_format=torch.channels_last
        )
        written = nn.Sequential(copy.deepcopy(plain))
        replace_small_convs(written)
        images = (
            torch.randn(64, inputs, height, width)
            .to(memory_format=torch.channels_last)
            .requires_grad_()
        )
        candidates: list[tuple[nn.Module, list[float]]] = [(plain, []), (written, [])]
        for _ in range(rounds):
            for layer, seconds in candidates:
                started = time.perf_counter()
                layer(images).sum().backward()
                seconds.append(time.perf_counter() - started)
                layer.zero_grad()
        torchs, ours = (1e3 * statistics.median(seconds[3:]) for _, seconds in candidates)
        print(
            f"{kernel:<8}{f'{inputs} > {outputs}':>12}{f'{height} x {width}':>8}{stride:>8}{torchs:>8.2f}{ours:>10.2f}"
            f"{torchs / ours:>8.2f}"
        )


def recipe(options: argparse.Namespace) -> None:
    """Print what timm and the experiment reach on one data set, and in what time."""
    print(
        f"{torch.get_num_threads()} threads; top-1 on valid with its 95 % Wilson interval; wall-clock from start to end"
    )
    print(
        f"{'what':<26}{'last epoch':>12}{'best epoch':>12}{'interval of last':>19}{'macro-F1':>10}{'seconds':>9}"
    )
    finals, bests = [], []
    with tempfile.TemporaryDirectory() as folder:
        if not options.without_timm:
            print_row("timm train.py, 15 epochs", *timm(options, Path(folder)))
        for seed in options.seeds:
            row = ours(options, seed, Path(folder))
            finals.append(row[0])
            bests.append(row[1])
            print_row(f"{options.experiment}, seed {seed}", *row)
    for name, values in (("last", finals), ("best", bests)):
        if len(values) > 1:
            half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
            print(
                f"mean over seeds, {name} epoch: {statistics.mean(values):.2%} +- {half:.2%} (1.96 standard errors)"
            )


def print_row(
    name: str, last: float, best: float, images: int, macro_f1: float | None, seconds: float
) -> None:
    """Print one line of the recipe's table."""
    bounds = wilson(last * images, images)
    f1 = "-" if macro_f1 is None else f"{macro_f1:.3f}"
    interval = f"{bounds.low:.1%}-{bounds.high:.1%}"
    print(f"{name:<26}{last:>12.2%}{best:>12.2%}{interval:>19}{f1:>10}{seconds:>9.0f}", flush=True)


def ours(
    options: argparse.Namespace, seed: int, folder: Path
) -> tuple[float, float, int, float, float]:
    """Run the app; return top-1 of the last and the best epoch, valid images, macro-F1 of the best, and seconds."""
    name = f"seed{seed}"
    given = [
        f"experiment={options.experiment}",
        f"data.root={options.root}",
        f"seed={seed}",
        f"run.root={folder}",
    ]
    if options.quarantine:
        given.append(f"data.quarantine={options.quarantine}")
    started = time.perf_counter()
    _run([sys.executable, "apps/train", *given, f"run.name={name}"])
    seconds = time.perf_counter() - started
    with (folder / name / "metrics.csv").open(newline="") as stream:
        top1 = [float(row["valid_top1"]) for row in csv.DictReader(stream) if row["valid_top1"]]
    metrics = json.loads((folder / name / "evaluation.json").read_bytes())["metrics"]["valid"]
    images = sum(len(rows) for rows in _rows(options, "valid").values())
    return top1[-1], metrics["valid_top1"], images, metrics["valid_macro_f1"], seconds


def timm(options: argparse.Namespace, folder: Path) -> tuple[float, float, int, None, float]:
    """Run timm's train.py as the issue's peer was run; return the same, of its raw weights."""
    script = options.timm_script or _clone(folder)
    images = {
        split: _as_folders(_rows(options, split), folder / "images" / split)
        for split in ("train", "valid")
    }
    classes = sorted(path.name for path in (folder / "images/train").iterdir())
    (folder / "classes.txt").write_text("\n".join(classes))
    command = [
        sys.executable,
        str(script),
        "--data-dir",
        str(folder / "images"),
        "--train-split",
        "train",
        "--val-split",
        "valid",
        "--class-map",
        str(folder / "classes.txt"),
        "--num-classes",
        str(len(classes)),
        "--model",
        "resnet18",
        "--input-size",
        "3",
        "64",
        "64",
        "--crop-pct",
        "1.0",
        "--batch-size",
        "64",
        "--opt",
        "adamw",
        "--lr",
        "1e-3",
        "--weight-decay",
        "0.05",
        "--sched",
        "cosine",
        "--epochs",
        str(EPOCHS),
        "--warmup-epochs",
        "1",
        "--smoothing",
        "0.1",
        "--hflip",
        "0",
        "--scale",
        "0.8",
        "1.0",
        "--ratio",
        "0.9",
        "1.1",
        "--color-jitter",
        "0.4",
        "--model-ema",
        "--model-ema-decay",
        "0.998",
        "--workers",
        "2",
        "--device",
        "cpu",
        "--no-prefetcher",
        "--seed",
        "1",
        "--output",
        str(folder / "timm"),
        "--experiment",
        "peer",
        "--log-interval",
        "1000",
    ]
    started = time.perf_counter()
    _run(command)
    seconds = time.perf_counter() - started
    with (folder / "timm/peer/summary.csv").open(newline="") as stream:
        top1 = [float(row["eval_top1"]) / 100 for row in csv.DictReader(stream)]
    return top1[-1], max(top1), images["valid"], None, seconds


def _clone(folder: Path) -> Path:
    place = folder / "timm-source"
    source = "https://github.com/huggingface/pytorch-image-models"
    _run(
        [
            "git",
            "clone",
            "--quiet",
            "--depth",
            "1",
            "--branch",
            f"v{version('timm')}",
            source,
            str(place),
        ]
    )
    return place / "train.py"


def _rows(options: argparse.Namespace, split: Any) -> dict[str, list[Path]]:
    """Return the images of each class."""
    quarantine = Quarantine.load(options.quarantine) if options.quarantine else None
    rows: dict[str, list[Path]] = {}
    for record in read_split(options.root, split, quarantine=quarantine):
        rows.setdefault(record.label, []).append(record.path)
    return rows


def _as_folders(rows: dict[str, list[Path]], folder: Path) -> int:
    """Link a folder of images for each class, as torchvision and timm read them."""
    for label, paths in rows.items():
        (folder / label).mkdir(parents=True)
        for path in paths:
            (folder / label / path.name).symlink_to(path.absolute())
    return sum(len(paths) for paths in rows.values())


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:3])} … failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


if __name__ == "__main__":
    main()
