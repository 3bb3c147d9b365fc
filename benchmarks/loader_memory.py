"""Compare the memory of four loader workers with that of one (Linux).

Command:  uv run python benchmarks/loader_memory.py            (about 1 minute)
Expected: at most 1.05 times the memory of one worker; the store holds 2 GiB and is shared.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from cls_data.images.store import PixelRows
from cls_data.loading.dataloaders import BatchDataset, build_dataloader
from cls_data.loading.samplers import EpochSampler

BATCH = 64
SIDE = 64
STORE_BYTES = 2**31
BATCHES_BEFORE_MEASURING = 400
ROUNDS = 3


def main() -> None:
    """Measure in child processes and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.workers is not None:
        print(measure_megabytes(options.workers))
        return
    megabytes: dict[int, list[float]] = {1: [], 4: []}
    for _ in range(ROUNDS):
        for workers, measured in megabytes.items():
            command = [sys.executable, __file__, "--workers", str(workers)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            measured.append(float(output))
    one = statistics.median(megabytes[1])
    four = statistics.median(megabytes[4])
    print(f"one worker {one:.0f} MB, four workers {four:.0f} MB, ratio {four / one:.3f}")


def measure_megabytes(workers: int) -> float:
    """Return the memory of this process and its workers; shared pages count once."""
    pixels = torch.empty(STORE_BYTES // (3 * SIDE * SIDE), 3, SIDE, SIDE, dtype=torch.uint8)
    pixels.random_()
    dataset = BatchDataset(PixelRows(pixels), torch.zeros(len(pixels), dtype=torch.int64))
    sampler = EpochSampler(len(pixels), BATCH, 0)
    loader = build_dataloader(dataset, sampler, num_workers=workers)
    for number, _ in enumerate(loader):
        if number == BATCHES_BEFORE_MEASURING:  # every worker has delivered batches by now
            break
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return sum(proportional_megabytes(process) for process in [str(os.getpid()), *children])


def proportional_megabytes(process: str) -> float:
    """Return the proportional set size of a process."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{process}/smaps_rollup has no line 'Pss:'")


if __name__ == "__main__":
    main()
