"""Runs of the app in processes that begin with everything imported, so that a fault can be tried many times."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["cls_train.main"])


def start(
    arguments: Sequence[str], output: Path, *, largest_file: int | None = None
) -> ForkServerProcess:
    """Start `apps/train ARGUMENTS` in a process group of its own.

    Args:
        arguments: as on a command line.
        output: where stdout and stderr go.
        largest_file: bytes beyond which the system refuses to write to a file, as a full disk would; None for no limit.
    """
    process = _context.Process(target=_run, args=(list(arguments), output, largest_file))
    process.start()
    return process


def _run(arguments: list[str], output: Path, largest_file: int | None) -> None:
    import torch

    from cls_train.main import main

    multiprocessing.set_start_method(
        "fork", force=True
    )  # of loader workers, as in a process that nobody forked
    torch.set_num_threads(
        1
    )  # whose runs are fast also beside other work: two threads wait for each other
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # which a shell's background jobs ignore
    os.setsid()
    with output.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    if largest_file is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.argv = ["apps/train", *arguments]
    main(REPOSITORY / "conf")
