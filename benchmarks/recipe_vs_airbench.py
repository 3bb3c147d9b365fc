"""Compare an experiment on 32 px images with KellerJordan's airbench, on the same GPU and pixels.

Command:  uv run python benchmarks/recipe_vs_airbench.py ROOT --script airbench94_muon.py
Expected: a row for airbench and one for the experiment: epochs per second, seconds of training,
          and top-1 on test without test-time augmentation; then when the experiment has reached
          airbench's accuracy, if it has.

ROOT has class folders in train/, valid/, and test/, with ten classes of 32x32 images, such as
CIFAR-10. The script is airbench94_muon.py of github.com/KellerJordan/cifar10-airbench (MIT),
unchanged: it reads train.pt and test.pt, which are written here, trains on train for 8 epochs again
and again, and is stopped after a few of its runs. Its time excludes compilation and evaluation; the
experiment's is the time of its training steps, without the start and validation on valid.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
AIRBENCH_EPOCHS = 8


@dataclass(frozen=True)
class Result:
    """A training: seconds, epochs, and top-1 on test, 0 to 1."""

    seconds: float
    epochs: int
    top1: float


def main() -> None:
    """Train both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--script", type=Path, help="airbench94_muon.py; without it, only ours")
    parser.add_argument("--runs", type=int, default=5, help="runs of airbench")
    parser.add_argument("--experiment", default="small_images")
    parser.add_argument("--overrides", nargs="*", default=["trainer=gpu"])
    options = parser.parse_args()
    print(f"{'training':<28}{'epochs/s':>10}{'seconds':>10}{'test top-1':>12}", flush=True)
    target = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.script is not None:
            for split in ("train", "test"):
                write_pixels(options.root / split, folder / f"cifar10/{split}.pt")
            results = list(run_airbench(options.script.absolute(), folder, options.runs))
            print_mean("airbench", results)
            target = statistics.mean(result.top1 for result in results)
        run = train_experiment(options, folder)
        print_mean(options.experiment, [read_result(run)])
        if target is not None:
            print(describe_time_to(target, run))


def write_pixels(split: Path, file: Path) -> None:
    """Write all images of a split and their labels as airbench caches them."""
    images = []
    labels = []
    classes = sorted(path.name for path in split.iterdir())
    for label, name in enumerate(classes):
        for path in sorted((split / name).iterdir()):
            images.append(np.asarray(Image.open(path).convert("RGB")))
            labels.append(label)
    file.parent.mkdir(exist_ok=True)
    pixels = torch.from_numpy(np.stack(images))
    torch.save({"images": pixels, "labels": torch.tensor(labels), "classes": classes}, file)


def run_airbench(script: Path, folder: Path, runs: int) -> Iterator[Result]:
    """Yield the results of some runs after its warm-up run, and stop the script."""
    command = [sys.executable, "-u", str(script)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        results = -1  # the first run is the warm-up
        top1 = 0.0
        for line in process.stdout:
            cells = [cell.strip() for cell in line.split("|")[1:-1]]
            if len(cells) != 6 or not cells[5].replace(".", "").isdigit():
                continue
            if cells[1] != "eval":
                top1 = float(cells[3])
                continue
            results += 1
            if results > 0:
                yield Result(float(cells[5]), AIRBENCH_EPOCHS, top1)
            if results == runs:
                process.terminate()
                return
    sys.exit(f"{script.name} ended after {max(0, results)} runs")


def train_experiment(options: argparse.Namespace, folder: Path) -> Path:
    """Train through the app, and return the run folder."""
    command = [
        sys.executable,
        "apps/train",
        f"experiment={options.experiment}",
        "data=folder",
        f"data.root={options.root.absolute()}",
        "data.gate=null",
        f"run.root={folder}",
        "run.name=run",
        *options.overrides,
    ]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder / "run"


def read_result(run: Path) -> Result:
    """Read the time of all training steps and the accuracy on test."""
    epochs = read_epochs(run)
    evaluation = json.loads((run / "evaluation.json").read_bytes())
    seconds = sum(seconds for seconds, _ in epochs)
    return Result(seconds, len(epochs), evaluation["metrics"]["test"]["test_top1"])


def describe_time_to(target: float, run: Path) -> str:
    """Say after how many seconds of training top-1 on valid has reached a target."""
    total = 0.0
    for number, (seconds, top1) in enumerate(read_epochs(run), start=1):
        total += seconds
        if top1 >= target:
            return f"valid top-1 of {target:.2%} after epoch {number}, {total:.1f} s"
    return f"valid top-1 of {target:.2%} not reached"


def read_epochs(run: Path) -> list[tuple[float, float]]:
    """Return the seconds of training and top-1 on valid of each epoch."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    epochs = []
    last_step = 0
    with (run / "metrics.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            images = (int(row["step"]) - last_step) * config["data"]["batch_size"]
            last_step = int(row["step"])
            epochs.append((images / float(row["images_per_second"]), float(row["valid_top1"])))
    return epochs


def print_mean(name: str, results: list[Result]) -> None:
    """Print the means of a kind of training."""
    seconds = statistics.mean(result.seconds for result in results)
    top1 = statistics.mean(result.top1 for result in results)
    speed = results[0].epochs / seconds
    label = f"{name} ({len(results)} runs)" if len(results) > 1 else name
    print(f"{label:<28}{speed:>10.2f}{seconds:>10.1f}{top1:>12.2%}", flush=True)


if __name__ == "__main__":
    main()
