"""Writes one checkpoint after another, until it is killed: python killed_writer.py PATH."""

import sys

import torch

from cls_callbacks import AtomicCheckpointIO


def main() -> None:
    number = 0
    while True:
        number += 1
        AtomicCheckpointIO().save_checkpoint({"number": number, "all": torch.full((1_000_000,), number)}, sys.argv[1])
        print(number, flush=True)


if __name__ == "__main__":
    main()
