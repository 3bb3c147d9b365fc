"""Run the app in processes that start with everything imported, to test many faults quickly."""

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
    arguments: Sequence[str], output: Path, *, max_file_bytes: int | None = None
) -> ForkServerProcess:
    """Start `apps/train ARGUMENTS` in a new process group.

    Args:
        arguments: The command line.
        output: File for stdout and stderr.
        max_file_bytes: Writing a larger file fails, as on a full disk; None for no limit.
    """
    process = _context.Process(target=_run, args=(list(arguments), output, max_file_bytes))
    process.start()
    return process


def _run(arguments: list[str], output: Path, max_file_bytes: int | None) -> None:
    import torch

    from cls_train.main import main

    # Loader workers fork, as in a process that was not forked itself.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    # Background jobs of a shell ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    with output.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    if max_file_bytes is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    sys.argv = ["apps/train", *arguments]
    main(REPOSITORY / "conf")
