"""Kills a process that writes one checkpoint after another, and checks what is left: killed_writer.py PATH KILLS.

The writers are forked, so that what they import is imported once. Prints how many kills fell into a write.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from cls_callbacks import AtomicCheckpointIO, verify_checkpoint


def write_until_killed(path: Path, said: int) -> None:
    number = 0
    while True:
        number += 1
        AtomicCheckpointIO().save_checkpoint(
            {"number": number, "all": torch.full((1_000_000,), number)}, path
        )
        os.write(said, number.to_bytes(4, "big"))


def main(path: Path, kills: int) -> None:
    torch.set_num_threads(1)  # no thread may be lost in a fork
    moments, while_writing = random.Random(2), 0
    for _ in range(kills):
        told, said = os.pipe()
        writer = os.fork()
        if writer == 0:
            os.close(told)
            write_until_killed(path, said)
        os.close(said)
        with os.fdopen(told, "rb") as stream:
            written = stream.read(4)  # one is whole
            time.sleep(moments.uniform(0, 0.1))
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
            written += stream.read()
        while_writing += any(path.parent.glob(f".{path.name}.*"))
        verify_checkpoint(path)
        saved = torch.load(path, weights_only=True)
        assert bool((saved["all"] == saved["number"]).all()), "parts of two checkpoints"
        assert saved["number"] >= int.from_bytes(written[-4:], "big"), (
            "an older checkpoint than was said to be saved"
        )
    print(while_writing)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
