"""Run the app in processes that start with everything imported, to test many faults quickly."""

import ctypes
import errno
import fcntl
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["cls_train.main", "cls_train.run", "hydra", "imported_exporter"])

Preparation = Callable[[], Any]
"""Changes the environment of a new process, before the app starts in it."""


def start(
    arguments: Sequence[str],
    output: Path,
    *,
    max_file_bytes: int | None = None,
    prepare: Preparation | None = None,
    environment: Mapping[str, str] | None = None,
) -> ForkServerProcess:
    """Start `apps/train ARGUMENTS` in a new process group.

    Args:
        arguments: The command line.
        output: File for stdout and stderr.
        max_file_bytes: Writing a larger file fails, as on a full disk; None for no limit.
        prepare: A function of this module.
        environment: Environment variables to set.
    """
    process = _context.Process(
        target=_run,
        args=(list(arguments), output, max_file_bytes, prepare, dict(environment or {})),
    )
    process.start()
    return process


def finish(arguments: Sequence[str], output: Path, **settings: Any) -> None:
    """Run `apps/train ARGUMENTS` to its end, and check that it succeeds."""
    process = start(arguments, output, **settings)
    process.join(300)
    assert process.exitcode == 0, output.read_text()


def limit_open_files() -> None:
    """Allow 64 open files, as `ulimit -n 64` does."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def remove_flock() -> None:
    """Let flock fail under folders named `no-flock`, as on a file system without locks."""
    real_flock = fcntl.flock

    def flock(descriptor: Any, operation: int) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        if "/no-flock/" in str(Path(f"/proc/self/fd/{number}").readlink()):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        real_flock(descriptor, operation)

    fcntl.flock = flock


def remove_network() -> None:
    """Leave this process without any network, not even the local one. Needs root on Linux."""
    _unshare(clone_flag=0x40000000)


def shrink_shared_memory() -> None:
    """Leave 64 kB in /dev/shm. Needs root on Linux."""
    _unshare(clone_flag=0x00020000)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/dev/shm"], check=True)


def make_warnings_errors() -> None:
    """Make warnings errors, as in pytest itself, except the one that pyproject.toml ignores."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "GPU available but not used")
    # Only these tests fork for an evaluation.
    warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)


def add_packages(folder: Path, hostname: str | None = None) -> None:
    """Make more packages importable, and rename the host for this process. Needs root on Linux."""
    sys.path.append(str(folder))
    if hostname is not None:
        _unshare(clone_flag=0x04000000)
        socket.sethostname(hostname)


def drop_root_permissions() -> None:
    """Make this process obey the permissions of files, which root ignores. Needs Linux."""
    libc = ctypes.CDLL(None, use_errno=True)
    pr_capbset_drop, cap_dac_override, cap_dac_read_search = 24, 1, 2
    for capability in (cap_dac_override, cap_dac_read_search):
        libc.prctl(pr_capbset_drop, capability, 0, 0, 0)

    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    data = (ctypes.c_uint32 * 6)()
    libc.capset(ctypes.byref(header), ctypes.byref(data))


def _unshare(clone_flag: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(clone_flag) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _run(
    arguments: list[str],
    output: Path,
    max_file_bytes: int | None,
    prepare: Preparation | None,
    environment: dict[str, str],
) -> None:
    import tempfile

    import torch
    from forked_evaluation import ForkedEvaluation

    from cls_train.main import main
    from cls_train.stages import evaluation_process

    evaluation_process._start = ForkedEvaluation
    # Loader workers fork, as in a process that was not forked itself.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    # Background jobs of a shell ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    with output.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)

    os.environ.update(environment)
    tempfile.tempdir = None
    if max_file_bytes is not None:
        import resource

        # The limit would cut bytecode files short, also those of the evaluation process.
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    if prepare is not None:
        prepare()
    sys.argv = ["apps/train", *arguments]
    sys.exit(main(REPOSITORY / "conf"))
