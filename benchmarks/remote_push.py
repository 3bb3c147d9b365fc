"""Measure what pushing a run to `run.remote` costs training, and a day of it on paper.

Command:  uv run python benchmarks/remote_push.py FOLDER_OR_URL [MEGABYTES]
Expected: a save waits for milliseconds, whatever the size of the checkpoint.

Each save is a new best.ckpt that is last.ckpt, too, as at the end of an epoch that improved. The
default of 179 MB is a ResNet-18 with AdamW and EMA. The training step beside which it pushes is a
matrix product on this thread; its share of time lost is that of a processor core.
"""

import shutil
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

import torch

from cls_callbacks import AtomicCheckpointIO, RemoteMirror
from cls_callbacks.checkpointing.checkpoint_files import duplicate_checkpoint, rename_checkpoint
from cls_export.contract.run_layout import RunPaths

SAVES = 8
STEP_SECONDS_BETWEEN_SAVES = 4.0
SAVES_PER_DAY = 24 * 6 + 100
"""One in ten minutes (`every_minutes`), and the epochs of a long training."""


def save(run: RunPaths, weights: torch.Tensor, step: int) -> None:
    """Write best.ckpt and link last.ckpt to it, as `BestAndLastCheckpoint` does."""
    run.checkpoints.mkdir(exist_ok=True)
    AtomicCheckpointIO().save_checkpoint({"global_step": step, "weights": weights}, run.best)
    duplicate_checkpoint(run.best, run.next)
    if run.last.exists():
        rename_checkpoint(run.last, run.previous)
    rename_checkpoint(run.next, run.last)


def count_steps(seconds: float) -> float:
    """Return the steps of a small training per second."""
    left = torch.randn(256, 256)
    steps = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        (left @ left).sum()
        steps += 1
    return steps / (time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    url = sys.argv[1]
    megabytes = float(sys.argv[2]) if len(sys.argv) > 2 else 179.0
    folder = Path(tempfile.mkdtemp())
    run = RunPaths(folder / f"benchmark-{uuid.uuid4().hex[:8]}")
    run.path.mkdir()
    run.config.write_text("seed: 1")
    alone = count_steps(STEP_SECONDS_BETWEEN_SAVES)

    waits, save_seconds, speeds = [], [], []
    with RemoteMirror.open(url, run) as mirror:
        for step in range(SAVES):
            weights = torch.randn(int(megabytes * 1e6 / 4))
            started = time.perf_counter()
            save(run, weights, step)
            saved = time.perf_counter()
            mirror.push(step)
            waits.append(1000 * (time.perf_counter() - saved))
            save_seconds.append(saved - started)
            speeds.append(count_steps(STEP_SECONDS_BETWEEN_SAVES))
        mirror.flush()
        seconds_per_push = mirror.seconds / mirror.pushes
        bytes_per_push = mirror.uploaded_bytes / mirror.pushes
    shutil.rmtree(folder)

    print(f"{mirror.pushes} pushes of {SAVES} saves of {megabytes:.0f} MB")
    print(
        f"a save takes {statistics.median(save_seconds):.2f} s on the local disk, without pushing"
    )
    print(f"it waits for the push {statistics.median(waits):.1f} ms (largest {max(waits):.1f} ms)")
    print(
        f"a push takes {seconds_per_push:.2f} s, {bytes_per_push / seconds_per_push / 1e6:.0f} MB/s"
    )
    print(f"training beside pushes runs at {100 * statistics.mean(speeds) / alone:.1f}% speed")
    day = SAVES_PER_DAY * seconds_per_push
    print(f"a day with {SAVES_PER_DAY} saves: {SAVES_PER_DAY * megabytes / 1000:.1f} GB pushed,")
    print(f"  a thread busy for {day / 864:.2f}% of the day,")
    print(f"  training waiting for {SAVES_PER_DAY * statistics.median(waits) / 8.64e5:.5f}% of it")


if __name__ == "__main__":
    main()
