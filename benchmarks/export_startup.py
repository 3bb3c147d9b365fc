"""Measure time and memory of the runtime in a new process, compared to torch and torchvision.

Command:  uv run python benchmarks/export_startup.py first-prediction    (about 2 minutes)
          uv run python benchmarks/export_startup.py memory              (about 3 minutes)
Expected: `first-prediction`: from process start to the first label, a fifth of the time and memory
          of torch and torchvision.
          `memory`: the same after 10,000 and 100,000 crops.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from export_model import write_random_bundle
from timing import environment_with_bytecode

ROUNDS = 7

MEGABYTES = """
def megabytes(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) // 1024
"""
"""Not the `resource` module: its figure includes the parent process before the exec."""

THROUGH_CLS_EXPORT = """
import sys
from cls_export import Classifier
print(Classifier(sys.argv[1], low_memory={low_memory}).predict([sys.argv[2]])[0].label)
"""

THROUGH_TORCH = """
import sys, torch, torchvision
from PIL import Image
from torchvision.transforms import v2
network = torchvision.models.resnet18(num_classes=43)
network.load_state_dict(torch.load(sys.argv[1], weights_only=True))
network.eval()
transform = v2.Compose([
    v2.Resize((64, 64)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
    v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
])
with torch.inference_mode():
    print(int(network(transform(Image.open(sys.argv[2]).convert("RGB"))[None]).argmax()))
"""

MANY_CROPS = """
import sys
import numpy as np
from cls_export import Classifier
rng = np.random.default_rng(0)
classifier = Classifier(sys.argv[1])
sizes = rng.integers(17, 64, (1000, 2)).tolist()
crops = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]
for thousand in range(1, 101):
    for _ in classifier.stream(crops):
        pass
    if thousand in (1, 10, 20, 50, 100):
        print(f"{1000 * thousand:>8}{megabytes('VmRSS'):>8}{megabytes('VmHWM'):>8}", flush=True)
"""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("first-prediction", "memory"))
    command = parser.parse_args().command
    with tempfile.TemporaryDirectory() as folder:
        if command == "first-prediction":
            compare_first_predictions(Path(folder))
        else:
            print_memory(Path(folder))


def compare_first_predictions(folder: Path) -> None:
    """Print seconds and megabytes from process start to the first label."""
    bundle, network = write_random_bundle(folder, 64)
    weights = folder / "weights.pth"
    torch.save(network.state_dict(), weights)
    programs = {
        "torch + torchvision": (THROUGH_TORCH, weights),
        "cls-export": (THROUGH_CLS_EXPORT.format(low_memory=False), bundle),
        "cls-export, low_memory": (THROUGH_CLS_EXPORT.format(low_memory=True), bundle),
        "import cls_export only": ("import cls_export; cls_export.Classifier\n", bundle),
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    megabytes: dict[str, list[float]] = {name: [] for name in programs}
    for round_number in range(ROUNDS + 1):
        for name, (code, model) in programs.items():
            duration, memory = run_program(code, model, folder / "crop.png")
            if round_number > 0:  # the first round reads the disk and writes bytecode
                seconds[name].append(duration)
                megabytes[name].append(memory)
    torch_seconds = statistics.median(seconds["torch + torchvision"])
    torch_megabytes = statistics.median(megabytes["torch + torchvision"])
    print(f"{'first label through':<26}{'seconds':>9}{'ratio':>7}{'MB':>8}{'ratio':>7}")
    for name in programs:
        duration = statistics.median(seconds[name])
        memory = statistics.median(megabytes[name])
        print(
            f"{name:<26}{duration:>9.2f}{duration / torch_seconds:>7.2f}"
            f"{memory:>8.0f}{memory / torch_megabytes:>7.2f}"
        )


def run_program(code: str, model: Path, image: Path) -> tuple[float, float]:
    """Run a program to its end; return its seconds and its largest resident megabytes."""
    program = f"{code}{MEGABYTES}print(megabytes('VmHWM'))"
    started = time.perf_counter()
    output = subprocess.run(
        [sys.executable, "-c", program, str(model), str(image)],
        env=environment_with_bytecode(),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return time.perf_counter() - started, float(output.split()[-1])


def print_memory(folder: Path) -> None:
    """Print the resident megabytes of a process, current and peak, while it predicts."""
    bundle, _ = write_random_bundle(folder, 64)
    print(f"{'crops':>8}{'MB':>8}{'peak':>8}", flush=True)
    subprocess.run([sys.executable, "-c", MEGABYTES + MANY_CROPS, str(bundle)], check=True)


if __name__ == "__main__":
    main()
