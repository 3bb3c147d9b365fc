"""Kill processes that write checkpoints, and check the files: killed_writer.py PATH KILLS.

Prints how many kills interrupted a write. The writers are forked, so that imports run once.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from cls_callbacks import AtomicCheckpointIO, verify_checkpoint


def write_until_killed(path: Path, pipe: int) -> None:
    """Write numbered checkpoints, and report each number after its checkpoint is complete."""
    number = 0
    while True:
        number += 1
        checkpoint = {"number": number, "all": torch.full((1_000_000,), number)}
        AtomicCheckpointIO().save_checkpoint(checkpoint, path)
        os.write(pipe, number.to_bytes(4, "big"))


def main(path: Path, kills: int) -> None:
    torch.set_num_threads(1)  # a fork loses all threads but one
    delays = random.Random(2)
    interrupted_writes = 0
    for _ in range(kills):
        reading, writing = os.pipe()
        writer = os.fork()
        if writer == 0:
            os.close(reading)
            write_until_killed(path, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            reported = stream.read(4)  # one checkpoint is complete
            time.sleep(delays.uniform(0, 0.1))
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
            reported += stream.read()
        interrupted_writes += any(path.parent.glob(f".{path.name}.*"))
        verify_checkpoint(path)
        saved = torch.load(path, weights_only=True)
        assert bool((saved["all"] == saved["number"]).all()), "mixed from two checkpoints"
        last_reported = int.from_bytes(reported[-4:], "big")
        assert saved["number"] >= last_reported, "older than the last complete checkpoint"
    print(interrupted_writes)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
