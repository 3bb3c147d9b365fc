"""Compare the runtime with the bare ONNX graph and with PyTorch, and int8 with float32.

Command:  uv run python benchmarks/export_latency.py crops    (about 2 minutes on two cores)
          uv run python benchmarks/export_latency.py int8     (about 1 minute)
Expected: `crops`: from array to label, at most 1.10 times the bare `session.run` at 64 px, and
          1.05 times at 224 px.
          `int8`: on a CPU with VNNI, 1.8 times the crops of float32 at 64 px, 2.5 times at 224 px.

Candidates run in turn in one process; the figures are medians. `of best` is the ratio of the
fastest tenths, which other processes disturb least.
"""

import argparse
import functools
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from export_model import random_crops, write_random_bundle
from PIL import Image
from timing import time_in_turns

from cls_export import Classifier
from cls_export.convert.quantization import quantize_bundle

SIZES = (64, 224)
BATCHES = (1, 8, 32)
SECONDS = 10.0
MIN_ROUNDS = 9
INT8_BATCH = 8
VNNI_FLAGS = ("avx512_vnni", "avx_vnni", "asimddp")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("crops", "int8"))
    command = parser.parse_args().command
    with tempfile.TemporaryDirectory() as folder:
        if command == "crops":
            compare_crops(Path(folder))
        else:
            compare_int8(Path(folder))


def compare_crops(folder: Path) -> None:
    """Print milliseconds per crop through the classifier, the bare graph, and PyTorch."""
    heads = ("ours, ms", "bare, ms", "ratio", "of best", "torch, ms")
    print(f"{'pixels':<10}{'batch':>6}" + "".join(f"{head:>11}" for head in heads))
    for size in SIZES:
        bundle, network = write_random_bundle(folder, size)
        for batch in BATCHES:
            classifier = Classifier(bundle, batch_size=batch)
            crops = random_crops(batch)
            preprocessing = classifier.labels.preprocessing
            pixels = np.stack([preprocessing.load_pixels(crop) for crop in crops])
            inputs = preprocessing.normalize(pixels)
            # The classifier's own session: two sessions in one process compete for the cores.
            session = classifier._session
            calls = [
                functools.partial(classifier.predict, crops),
                functools.partial(session.run, ["logits"], {"images": inputs}),
            ]
            ours, bare = time_in_turns(calls, rounds=MIN_ROUNDS, seconds=SECONDS)
            with torch.inference_mode():
                call = functools.partial(network, torch.from_numpy(inputs))
                (eager,) = time_in_turns([call], rounds=MIN_ROUNDS, seconds=SECONDS)
            our_ms, bare_ms, eager_ms = (
                1000 * statistics.median(seconds) / batch for seconds in (ours, bare, eager)
            )
            ratio_of_best = np.quantile(ours, 0.1) / np.quantile(bare, 0.1)
            print(
                f"{f'{size}x{size}':<10}{batch:>6}{our_ms:>11.2f}{bare_ms:>11.2f}"
                f"{our_ms / bare_ms:>11.3f}{ratio_of_best:>11.3f}{eager_ms:>11.2f}",
                flush=True,
            )


def compare_int8(folder: Path) -> None:
    """Print milliseconds per crop of the bare graphs in float32 and int8."""
    print(f"the CPU {'has' if has_vnni() else 'lacks'} VNNI")
    print(f"{'pixels':<10}{'batch':>6}{'float32, ms':>13}{'int8, ms':>10}{'ratio':>8}")
    images = [Image.fromarray(crop) for crop in random_crops(64)]
    for size in SIZES:
        bundle, _ = write_random_bundle(folder, size)
        int8_bundle = folder / f"int8-{size}"
        quantize_bundle(bundle, int8_bundle, images, images, max_accuracy_drop=1.0)
        shape = (INT8_BATCH, 3, size, size)
        inputs = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        calls = []
        for path in (bundle, int8_bundle):
            session = Classifier(path, batch_size=INT8_BATCH)._session
            calls.append(functools.partial(session.run, ["logits"], {"images": inputs}))
        durations = time_in_turns(calls, rounds=MIN_ROUNDS, seconds=SECONDS)
        float32_ms, int8_ms = (
            1000 * statistics.median(seconds) / INT8_BATCH for seconds in durations
        )
        print(
            f"{f'{size}x{size}':<10}{INT8_BATCH:>6}{float32_ms:>13.2f}{int8_ms:>10.2f}"
            f"{float32_ms / int8_ms:>8.2f}",
            flush=True,
        )


def has_vnni() -> bool:
    """Return whether the processor has instructions for dot products of bytes."""
    cpu_info = Path("/proc/cpuinfo")
    if not cpu_info.exists():
        return False
    text = cpu_info.read_text()
    return any(flag in text for flag in VNNI_FLAGS)


if __name__ == "__main__":
    main()
