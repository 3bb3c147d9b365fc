"""Start and end processes that import PyTorch."""

import atexit
import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any, NoReturn

from cls_export.contract.commands import EXIT_INTERRUPTED, EXIT_TERMINATED

SPIN_COUNT = 30_000
"""How often a waiting thread of libgomp looks for work before it sleeps, against 300,000 times by
default. See `benchmarks/busy_machine.py`."""


def shorten_spinning() -> None:
    """Let the threads of training on a CPU sleep soon when they wait, so that it shares the cores.

    With other work on all cores, a thread that spins takes the time that the thread it waits for
    needs. Call this before PyTorch is imported: libgomp reads the variable when it is loaded. Child
    processes inherit it. Values that the user has set are kept.
    """
    is_set = "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ
    if not is_set:
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


@contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Pause garbage collection, which makes imports in this block about 20% faster.

    Modules live until the process ends, so collecting them has no benefit. Objects that
    exist at the end of the block are excluded from later collections too. Use it in a process that
    ends with `run_and_exit`: otherwise nanobind reports them as leaks.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def treat_sigusr1_as_sigterm() -> None:
    """Let SIGUSR1, the warning of some schedulers, end this process with `EXIT_TERMINATED`.

    While training, `PreemptionCheckpoint` handles both signals.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise SystemExit(EXIT_TERMINATED)

    is_main_thread = threading.current_thread() is threading.main_thread()
    if is_main_thread and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, on_signal)


def import_torchmetrics() -> None:
    """Import torchmetrics, which Lightning needs, without scipy.signal: 1 s less.

    torchmetrics 1.9 imports scipy.signal only to add the function `hamming`, which no metric of
    this project needs. It finds a stand-in, which is removed afterwards.
    """
    name = "scipy.signal"
    if name in sys.modules or "torchmetrics" in sys.modules:
        return
    stand_in: Any = ModuleType(name)
    stand_in.hamming = None
    sys.modules[name] = stand_in
    try:
        import torchmetrics  # noqa: F401
    finally:
        del sys.modules[name]


@contextmanager
def immediate_exit_on_signals() -> Iterator[None]:
    """Exit without an exception if a signal arrives while PyTorch is imported.

    An exception that a signal handler raises in a C++ initializer aborts the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    codes = {
        signal.SIGTERM: EXIT_TERMINATED,
        signal.SIGUSR1: EXIT_TERMINATED,
        signal.SIGINT: EXIT_INTERRUPTED,
    }

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        os._exit(codes[signal.Signals(number)])

    previous = {}
    for number in codes:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a shell
            previous[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """Let Linux kill this process when its parent dies. Does nothing on other systems."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def run_and_exit(command: Callable[[], None]) -> NoReturn:
    """Run a command, then exit without tearing down modules.

    Python 3.11 spends two seconds on searching the modules of PyTorch for garbage when it exits.
    Threads, `atexit` functions, and output are finished as usual.
    """
    code = 0
    try:
        command()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    # As Python does: stops thread pools, then joins the other threads.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
