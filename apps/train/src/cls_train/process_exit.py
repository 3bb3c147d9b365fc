"""End a process quickly."""

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn


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
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
