"""Compare an experiment with timm's train.py, on the same rows, cores, and threads.

Command:  uv run --with timm==1.0.31 python benchmarks/recipe_vs_timm.py ROOT
          with --quarantine FILE and --seeds 1 2 3; on a GPU with --device cuda
Expected: one row for timm and one per seed: top-1 on valid with its 95% Wilson interval,
          macro-F1, and wall-clock seconds; then the mean over the seeds.

The timm wheel does not contain train.py. Without --timm-script, the repository is cloned at the
tag of the installed version.
"""

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from cls_data import Quarantine, Record, read_split
from cls_report import wilson_interval

ROOT = Path(__file__).resolve().parent.parent
TIMM_REPOSITORY = "https://github.com/huggingface/pytorch-image-models"
TIMM_EPOCHS = 15
TIMM_SETTINGS = f"""
    --model resnet18 --input-size 3 64 64 --crop-pct 1.0 --batch-size 64
    --opt adamw --lr 1e-3 --weight-decay 0.05 --sched cosine --warmup-epochs 1
    --epochs {TIMM_EPOCHS}
    --smoothing 0.1 --hflip 0 --scale 0.8 1.0 --ratio 0.9 1.1 --color-jitter 0.4
    --model-ema --model-ema-decay 0.998 --seed 1 --log-interval 1000
""".split()
TIMM_DEVICE_SETTINGS = {
    "cpu": ["--device", "cpu", "--workers", "2", "--no-prefetcher"],
    "cuda": [
        "--device",
        "cuda",
        "--workers",
        "12",
        "--amp",
        "--amp-dtype",
        "bfloat16",
        "--channels-last",
    ],
}
OUR_DEVICE_SETTINGS = {"cpu": [], "cuda": ["trainer=gpu"]}


@dataclass(frozen=True)
class Result:
    """Validation accuracy of one training.

    Attributes:
        last_top1: Top-1 of the last epoch.
        best_top1: Top-1 of the best epoch.
        macro_f1: Macro-F1 of the best epoch; None if unknown.
        seconds: Wall-clock time.
    """

    last_top1: float
    best_top1: float
    macro_f1: float | None
    seconds: float


def main() -> None:
    """Train and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--quarantine", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1])
    parser.add_argument("--experiment", default="jersey_numbers")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--epochs", type=int, help="ours; by default those of the experiment")
    parser.add_argument("--timm-script", type=Path)
    parser.add_argument("--without-timm", action="store_true")
    options = parser.parse_args()
    images = len(read_rows(options, "valid"))
    hardware = f"{torch.get_num_threads()} threads"
    if options.device == "cuda":
        hardware = torch.cuda.get_device_name()
    print(f"{hardware}; top-1 on {images} validation images")
    heads = ("last epoch", "best epoch", "interval of last", "macro-F1", "seconds")
    print(f"{'training':<26}{heads[0]:>12}{heads[1]:>12}{heads[2]:>19}{heads[3]:>10}{heads[4]:>9}")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        if not options.without_timm:
            name = f"timm train.py, {TIMM_EPOCHS} epochs"
            print_result(name, train_timm(options, Path(folder)), images)
        for seed in options.seeds:
            result = train_ours(options, seed, Path(folder))
            print_result(f"{options.experiment}, seed {seed}", result, images)
            results.append(result)
    print_mean("last", [result.last_top1 for result in results])
    print_mean("best", [result.best_top1 for result in results])


def print_result(name: str, result: Result, images: int) -> None:
    """Print one row."""
    bounds = wilson_interval(result.last_top1 * images, images)
    interval = f"{bounds.low:.1%}-{bounds.high:.1%}"
    macro_f1 = "-" if result.macro_f1 is None else f"{result.macro_f1:.3f}"
    print(
        f"{name:<26}{result.last_top1:>12.2%}{result.best_top1:>12.2%}{interval:>19}"
        f"{macro_f1:>10}{result.seconds:>9.0f}",
        flush=True,
    )


def print_mean(epoch: str, values: Sequence[float]) -> None:
    """Print the mean over the seeds with its 95% interval."""
    if len(values) > 1:
        half_width = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
        mean = statistics.mean(values)
        print(
            f"mean over seeds, {epoch} epoch: {mean:.2%} ± {half_width:.2%} (1.96 standard errors)"
        )


def train_ours(options: argparse.Namespace, seed: int, folder: Path) -> Result:
    """Train the experiment through the app."""
    name = f"seed{seed}"
    command = [
        sys.executable,
        "apps/train",
        f"experiment={options.experiment}",
        f"data.root={options.root}",
        f"seed={seed}",
        f"run.root={folder}",
        f"run.name={name}",
        *OUR_DEVICE_SETTINGS[options.device],
    ]
    if options.epochs:
        command.append(f"trainer.max_epochs={options.epochs}")
    if options.quarantine:
        command.append(f"data.quarantine={options.quarantine}")
    seconds = run_command(command)
    top1 = read_column(folder / name / "metrics.csv", "valid_top1")
    evaluation = json.loads((folder / name / "evaluation.json").read_bytes())
    metrics = evaluation["metrics"]["valid"]
    return Result(top1[-1], metrics["valid_top1"], metrics["valid_macro_f1"], seconds)


def train_timm(options: argparse.Namespace, folder: Path) -> Result:
    """Train with timm's train.py; the accuracy is that of its raw weights."""
    script = options.timm_script or clone_timm(folder)
    for split in ("train", "valid"):
        link_as_class_folders(read_rows(options, split), folder / "images" / split)
    classes = sorted(path.name for path in (folder / "images/train").iterdir())
    class_map = folder / "classes.txt"
    class_map.write_text("\n".join(classes))
    command = [sys.executable, str(script), "--data-dir", str(folder / "images")]
    command += ["--train-split", "train", "--val-split", "valid"]
    command += ["--class-map", str(class_map), "--num-classes", str(len(classes))]
    command += ["--output", str(folder / "timm"), "--experiment", "peer", *TIMM_SETTINGS]
    command += TIMM_DEVICE_SETTINGS[options.device]
    seconds = run_command(command)
    top1 = [value / 100 for value in read_column(folder / "timm/peer/summary.csv", "eval_top1")]
    return Result(top1[-1], max(top1), None, seconds)


def clone_timm(folder: Path) -> Path:
    """Clone timm at the installed version, and return its train.py."""
    target = folder / "timm-source"
    tag = f"v{version('timm')}"
    run_command(
        ["git", "clone", "--quiet", "--depth", "1", "--branch", tag, TIMM_REPOSITORY, str(target)]
    )
    return target / "train.py"


def read_rows(options: argparse.Namespace, split: str) -> list[Record]:
    """Return the rows of a split without those in quarantine."""
    quarantine = Quarantine.load(options.quarantine) if options.quarantine else None
    return list(read_split(options.root, split, quarantine=quarantine))


def read_column(file: Path, column: str) -> list[float]:
    """Return the values of a CSV column, without empty cells."""
    with file.open(newline="") as stream:
        return [float(row[column]) for row in csv.DictReader(stream) if row[column]]


def link_as_class_folders(records: Sequence[Record], folder: Path) -> None:
    """Create class folders of links, as torchvision and timm read them."""
    for record in records:
        link = folder / record.label / record.path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(record.path.absolute())


def run_command(command: Sequence[str]) -> float:
    """Run a command and return its seconds; exit with its output if it fails."""
    started = time.perf_counter()
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        name = " ".join(command[:3])
        sys.exit(f"{name} … failed:\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
