"""What an exported model costs beside the bare graph, and beside PyTorch.

Commands: uv run python benchmarks/export.py crops    (about 2 minutes on two cores)
          uv run python benchmarks/export.py start    (about 2 minutes)
          uv run python benchmarks/export.py memory   (about 3 minutes)
          uv run python benchmarks/export.py threads  (about 6 minutes)
          uv run python benchmarks/export.py int8     (about 1 minute)
Expected: tables. Goals: a crop from numpy array to label takes at most 1.10 times the bare `session.run` on ready
tensors at 64 px, and 1.05 times at 224 px; from process start to the first answer a fifth of the time and memory of the
same through torch and torchvision; memory is the same after 10,000 and after 100,000 crops; the classifier's own choice
of threads is as fast as onnxruntime's on an idle machine, and faster on one whose other core is busy; int8 answers 2.5
times as many crops as float32 at 224 px and 1.8 times as many at 64 px, where the CPU has VNNI.

All that is compared runs in turns in one process, or in processes of their own, and medians are printed; for crops also
the ratio of each one's fastest tenth, which other processes disturb least.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cls_export import Classifier, LabelsMapping, Preprocessing
from cls_export.convert.exporter import write_bundle
from cls_export.convert.quantization import quantize_bundle
from cls_models import build_backbone

CLASSES = {str(number): number for number in range(43)}
CROP = (40, 29)
"""Height and width in pixels: the median of the crops that this project began with."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Benchmarks of exported models.")
    parser.add_argument("command", choices=("crops", "start", "memory", "threads", "int8"))
    command = parser.parse_args().command
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "crops": crops,
            "start": start,
            "memory": memory,
            "threads": threads,
            "int8": int8,
        }
        commands[command](Path(folder))


def make_bundle(folder: Path, size: int) -> tuple[Path, torch.nn.Module]:
    """Write a bundle of a ResNet-18 with random weights, and return it with the network."""
    torch.manual_seed(0)
    network = build_backbone("resnet18", len(CLASSES), stem="standard").eval()
    preprocessing = Preprocessing(
        size=(size, size), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    image = folder / "crop.png"
    Image.fromarray(random_crops(1)[0]).save(image)
    bundle = folder / f"bundle{size}"
    write_bundle(network, LabelsMapping.from_classes(CLASSES, preprocessing), bundle, [image])
    return bundle, network


def random_crops(count: int) -> list[np.ndarray]:
    """Return uint8 crops of the usual size."""
    draws = np.random.default_rng(0)
    return [draws.integers(0, 256, (*CROP, 3), dtype=np.uint8) for _ in range(count)]


def crops(folder: Path) -> None:
    """Print milliseconds a crop: through the classifier, the bare graph, and PyTorch."""
    print(
        f"{'pixels':<10}{'batch':>6}{'ours, ms':>10}{'bare, ms':>10}{'ratio':>8}{'of best':>9}{'torch, ms':>11}"
    )
    for size in (64, 224):
        bundle, network = make_bundle(folder, size)
        for batch in (1, 8, 32):
            classifier = Classifier(bundle, batch_size=batch)
            given, preprocessing = random_crops(batch), classifier.labels.preprocessing
            ready = preprocessing.normalize(
                np.stack([preprocessing.pixels(crop) for crop in given])
            )
            # The very session that the classifier has: two in one process would get into each other's way.
            session, tensor = classifier._session, torch.from_numpy(ready)
            ours, bare = in_turns(
                lambda classifier=classifier, given=given: classifier.predict(given),
                lambda session=session, ready=ready: session.run(["logits"], {"images": ready}),
            )
            with torch.inference_mode():
                (eager,) = in_turns(lambda tensor=tensor, network=network: network(tensor))
            medians = (1000 * np.median(times) / batch for times in (ours, bare, eager))
            ratios = [np.quantile(ours, share) / np.quantile(bare, share) for share in (0.5, 0.1)]
            print(
                f"{f'{size}x{size}':<10}{batch:>6}{next(medians):>10.2f}{next(medians):>10.2f}"
                f"{ratios[0]:>8.3f}{ratios[1]:>9.3f}{next(medians):>11.2f}",
                flush=True,
            )


def in_turns(*calls: Callable[[], object], seconds: float = 10.0) -> list[list[float]]:
    """Return the seconds that each call took, each in its turn for some seconds and at least nine times."""
    taken: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while len(taken[0]) < 10 or time.perf_counter() < end:
        for times, call in zip(taken, calls, strict=True):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
    return [times[1:] for times in taken]


THREADS = """
import json, statistics, sys, time
import numpy as np, onnxruntime as ort
from cls_export import Classifier
bundle, setting, batch, seconds = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
if setting is None:
    session = Classifier(bundle)._session
else:
    options = ort.SessionOptions()
    options.intra_op_num_threads = setting.pop("threads", 0)
    for name, value in setting.items():
        options.add_session_config_entry("session.intra_op." + name, value)
    session = ort.InferenceSession(bundle + "/model.onnx", options, providers=["CPUExecutionProvider"])
images = np.zeros((batch, *session.get_inputs()[0].shape[1:]), np.float32)
times, end = [], time.perf_counter() + seconds
while len(times) < 6 or time.perf_counter() < end:
    started = time.perf_counter()
    session.run(["logits"], {"images": images})
    times.append(time.perf_counter() - started)
print(1000 * statistics.median(times[1:]) / batch)
"""

SETTINGS: dict[str, object] = {
    "the classifier's": None,
    "onnxruntime's own": {},
    "awake for 1 ms": {"spin_duration_us": "1000"},
    "awake for 0.1 ms": {"spin_duration_us": "100"},
    "never awake": {"allow_spinning": "0"},
    "one thread": {"threads": 1},
}


def threads(folder: Path, rounds: int = 5, seconds: float = 1.0) -> None:
    """Print milliseconds an image of the bare graph by settings of its threads, alone and beside a busy core."""
    bundles = {size: make_bundle(folder, size)[0] for size in (64, 224)}
    print(f"{'pixels':<10}{'batch':>6}  {'threads':<22}{'idle, ms':>10}{'busy, ms':>10}")
    for size, bundle in bundles.items():
        for batch in (1, 8):
            taken: dict[tuple[str, bool], list[float]] = {
                (name, busy): [] for name in SETTINGS for busy in (False, True)
            }
            for _ in range(rounds):
                for (name, busy), values in taken.items():
                    values.append(
                        alone_or_not(
                            busy, str(bundle), json.dumps(SETTINGS[name]), str(batch), str(seconds)
                        )
                    )
            for name in SETTINGS:
                idle, busy = (statistics.median(taken[name, state]) for state in (False, True))
                print(
                    f"{f'{size}x{size}':<10}{batch:>6}  {name:<22}{idle:>10.2f}{busy:>10.2f}",
                    flush=True,
                )


def alone_or_not(busy: bool, *arguments: str) -> float:
    """Run `THREADS` in a process of its own, where asked for beside one that keeps half of the cores busy."""
    spin = [sys.executable, "-c", "while True: pass"]
    neighbours = [
        subprocess.Popen(spin) for _ in range(max(1, (os.cpu_count() or 2) // 2) if busy else 0)
    ]
    try:
        command = [sys.executable, "-c", THREADS, *arguments]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


def int8(folder: Path, batch: int = 8) -> None:
    """Print milliseconds a crop of a ResNet-18 with random weights in float32 and in int8, the bare graphs in turns."""
    print(f"the CPU {'has' if has_vnni() else 'lacks'} VNNI")
    print(f"{'pixels':<10}{'batch':>6}{'float32, ms':>13}{'int8, ms':>10}{'times':>8}")
    for size in (64, 224):
        bundle, _ = make_bundle(folder, size)
        target = folder / f"int8-{size}"
        images = [Image.fromarray(crop) for crop in random_crops(64)]
        quantize_bundle(bundle, target, images, images, max_accuracy_drop=1.0)
        runs = []
        for place in (bundle, target):
            classifier = Classifier(place, batch_size=batch)
            ready = np.random.default_rng(0).standard_normal(
                (batch, 3, size, size), dtype=np.float32
            )
            runs.append(
                lambda session=classifier._session, ready=ready: session.run(
                    ["logits"], {"images": ready}
                )
            )
        full, few = (1000 * float(np.median(times)) / batch for times in in_turns(*runs))
        print(
            f"{f'{size}x{size}':<10}{batch:>6}{full:>13.2f}{few:>10.2f}{full / few:>8.2f}",
            flush=True,
        )


def has_vnni() -> bool:
    """Say whether the processor multiplies bytes and adds the products in one instruction."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and any(
        name in flags.read_text() for name in ("avx512_vnni", "avx_vnni", "asimddp")
    )


OURS = """
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


def start(folder: Path, rounds: int = 7) -> None:
    """Print seconds and megabytes from process start to the first answer."""
    bundle, network = make_bundle(folder, 64)
    weights, image = folder / "weights.pth", folder / "crop.png"
    torch.save(network.state_dict(), weights)
    cases = {
        "torch + torchvision": (THROUGH_TORCH, weights),
        "cls-export": (OURS.format(low_memory=False), bundle),
        "cls-export, low_memory": (OURS.format(low_memory=True), bundle),
        "import cls_export alone": ("import cls_export\n", bundle),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, (code, model) in cases.items():
            found = first_answer(code, model, image)
            if turn:  # the first one reads the files from the disk, and writes bytecode
                taken[name].append(found)
    medians = {
        name: [statistics.median(part) for part in zip(*values, strict=True)]
        for name, values in taken.items()
    }
    theirs = medians["torch + torchvision"]
    print(f"{'first answer through':<26}{'seconds':>9}{'share':>7}{'MB':>8}{'share':>7}")
    for name, (seconds, megabytes) in medians.items():
        shares = seconds / theirs[0], megabytes / theirs[1]
        print(f"{name:<26}{seconds:>9.2f}{shares[0]:>7.2f}{megabytes:>8.0f}{shares[1]:>7.2f}")


MEMORY = """
def megabytes(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) // 1024
"""
"""What `resource` knows of a process's memory counts the one that it was forked from, too."""


def first_answer(code: str, model: Path, image: Path) -> tuple[float, float]:
    """Run a program to its end; return its seconds, and its largest resident megabytes."""
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    command = [
        sys.executable,
        "-c",
        f"{code}{MEMORY}print(megabytes('VmHWM'))",
        str(model),
        str(image),
    ]
    started = time.perf_counter()
    output = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout
    return time.perf_counter() - started, int(output.split()[-1])


MANY = """
import sys
import numpy as np
from cls_export import Classifier
draws, classifier = np.random.default_rng(0), Classifier(sys.argv[1])
sizes = draws.integers(17, 64, (1000, 2)).tolist()
crops = [draws.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]
for thousand in range(1, 101):
    for _ in classifier.stream(crops):
        pass
    if thousand in (1, 10, 20, 50, 100):
        print(f"{1000 * thousand:>8}{megabytes('VmRSS'):>8}{megabytes('VmHWM'):>8}", flush=True)
"""


def memory(folder: Path) -> None:
    """Print a process's resident megabytes, now and at most, as it answers crops of 17 to 63 px."""
    bundle, _ = make_bundle(folder, 64)
    print(f"{'crops':>8}{'MB':>8}{'most':>8}", flush=True)
    subprocess.run([sys.executable, "-c", MEMORY + MANY, str(bundle)], check=True)


if __name__ == "__main__":
    main()
