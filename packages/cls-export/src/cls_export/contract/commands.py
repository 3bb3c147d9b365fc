"""Run a command so that every error ends in one message and a documented exit code."""

import errno
import io
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

from cls_export.contract.text import escape_control_characters, shorten_long_words

EXIT_FAILED: Final = 1
EXIT_WRONG_INPUT: Final = 2
EXIT_INTERRUPTED: Final = 128 + signal.SIGINT
EXIT_TERMINATED: Final = 128 + signal.SIGTERM

EXIT_CODES: Final = (
    "Exit codes: 0 success, 1 the work failed, 2 wrong input, 130 Ctrl-C, 143 terminated."
)
"""For the help text of each command."""

_INPUT_ERRNOS = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)
"""The user named a path that cannot be used. Other system errors, such as a full disk, are failed
work."""


def run_command(
    name: str,
    command: Callable[[], int | None],
    *,
    wrong_input: tuple[type[Exception], ...],
    failed: tuple[type[Exception], ...] = (),
) -> int:
    """Run a command, and return its exit code.

    Expected errors are printed as one message. SIGTERM ends the command like Ctrl-C does, so that
    `finally` blocks run. Any other exception is reported as a bug: its traceback goes to a file in
    the temporary folder, and the message names that file and the command that was run.

    Args:
        name: The command, such as `cls-data`. Each message starts with it.
        command: Returns an exit code, or None for success.
        wrong_input: Errors that the user fixes by changing the input. Exit code 2.
        failed: Errors of work that failed on correct input. Exit code 1.
    """
    _replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name may have characters that the terminal's encoding lacks.
            stream.reconfigure(errors="backslashreplace")
    _raise_on_sigterm()

    try:
        return _run_and_flush(command)
    except BrokenPipeError:  # the reader, such as `head`, closed the pipe
        _flush_output()
        return 0
    except KeyboardInterrupt:
        _print_error(name, "interrupted")
        return EXIT_INTERRUPTED
    except wrong_input as error:
        _print_error(name, str(error))
        return EXIT_WRONG_INPUT
    except failed as error:
        _print_error(name, str(error))
        return EXIT_FAILED
    except OSError as error:
        if error.errno is None:
            return _report_bug(name, error)
        _print_error(name, _describe_os_error(error))
        return EXIT_WRONG_INPUT if error.errno in _INPUT_ERRNOS else EXIT_FAILED
    except MemoryError as error:
        _print_error(name, f"out of memory ({error})" if str(error) else "out of memory")
        return EXIT_FAILED
    except Exception as error:
        return _report_bug(name, error)


def _run_and_flush(command: Callable[[], int | None]) -> int:
    try:
        code = command() or 0
    except SystemExit:  # from --help, for example
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return code


def _replace_closed_streams() -> None:
    """Replace streams that the caller closed, as in `>&-`."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115


def _flush_output() -> None:
    """Flush standard output, or discard it if it cannot be written.

    Otherwise Python would try again at exit, and print a second error.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _raise_on_sigterm() -> None:
    is_main_thread = threading.current_thread() is threading.main_thread()
    if is_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit_terminated)


def _exit_terminated(signal_number: int, frame: FrameType | None) -> None:
    del signal_number, frame
    raise SystemExit(EXIT_TERMINATED)


def _print_error(name: str, message: str) -> None:
    _flush_output()
    text = shorten_long_words(escape_control_characters(message))
    print(f"{name}: {text}", file=sys.stderr)


def _describe_os_error(error: OSError) -> str:
    if error.filename is None:
        return str(error.strerror)
    return f"{error.filename}: {error.strerror}"


def _report_bug(name: str, error: Exception) -> int:
    summary = f"{type(error).__name__}: {error}"
    command_line = shlex.join([name, *sys.argv[1:]])
    text = f"{command_line}\n\n{''.join(traceback.format_exception(error))}"

    now = time.strftime("%Y%m%d-%H%M%S")
    file_name = f"{Path(name).name}-error-{now}-{os.getpid()}.txt"
    try:
        file = Path(tempfile.gettempdir()) / file_name  # fails if no folder can be written
        file.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError:
        print(text, file=sys.stderr)
        where = "The traceback is above"
    else:
        where = f"The traceback was written to {file}"
    _print_error(
        name,
        f"this is a bug, please report it: {summary}\n{where}.\nTo reproduce it: {command_line}",
    )
    return EXIT_FAILED
