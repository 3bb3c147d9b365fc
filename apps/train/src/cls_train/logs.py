"""Log to the terminal and to the run folder."""

import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

from cls_export.contract.text import escape_control_characters

_FORMAT = "{time:HH:mm:ss} {level: <7} {message}"
_FILE_FORMAT = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {message}"

_STORAGE_LOGGERS = ("fsspec", "gcsfs", "s3fs")
"""They log tracebacks of failures that the app reports in one message."""


def configure_logging(*, is_first: bool = True) -> None:
    """Log to the terminal, and hide routine messages and warnings of Lightning.

    Args:
        is_first: Whether this is the first process of a run. The others log nothing.
    """
    logger.remove()
    if is_first:
        logger.add(_write_to_stderr, format=_FORMAT, level="INFO")
    else:
        warnings.simplefilter("ignore")
    threading.excepthook = _log_thread_exception
    _forward_package_logs()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for name in _STORAGE_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # The store is in memory and a batch is one gather: workers would only add copies.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Frozen layers are meant to be in eval mode.
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
    # Every logged metric is that of all ranks already, or one of the first rank.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    # Lightning 2.6.6 uses a deprecated check of torch 2.15.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")


def _write_to_stderr(line: str) -> None:
    # Rich replaces sys.stderr while a progress bar is shown, so it is looked up for each line.
    print(escape_control_characters(line), end="", file=sys.stderr)


def _log_thread_exception(args: threading.ExceptHookArgs) -> None:
    """Log an exception of a thread in one line, such as a logger's when its folder was deleted."""
    name = "unknown"
    if args.thread is not None:
        name = args.thread.name
    logger.error("thread {} failed: {}", name, args.exc_value)


class _LoguruHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        logger.log(record.levelname, "{}", message)


def _forward_package_logs() -> None:
    """Send the standard logging of cls_models to loguru."""
    package = logging.getLogger("cls_models")
    package.handlers = [_LoguruHandler()]
    package.setLevel(logging.INFO)

    for name, each in logging.root.manager.loggerDict.items():
        is_ours = name.startswith("cls_models")
        if is_ours and isinstance(each, logging.Logger):
            each.disabled = False  # Hydra disables loggers that exist before it starts


@contextmanager
def capture_lines() -> Iterator[list[str]]:
    """Collect log lines while the block runs, for a run folder that does not exist yet."""
    lines: list[str] = []
    sink = logger.add(lines.append, format=_FILE_FORMAT, level="INFO")
    try:
        yield lines
    finally:
        logger.remove(sink)


class _LogFile:
    """Append log lines to a file. After the first failure, say so once and drop further lines.

    A full disk must not end a run through its log, and loguru would print a traceback a line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._has_failed = False

    def write(self, line: str) -> None:
        """Append a line."""
        if self._has_failed:
            return
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line)
        except OSError as error:
            self._has_failed = True
            _write_to_stderr(
                f"{self._path}: {error.strerror}. The log is continued on the terminal only.\n"
            )


@contextmanager
def log_to_file(path: Path, earlier: Sequence[str] = ()) -> Iterator[None]:
    """Append the earlier lines to a file, then the lines logged while the block runs."""
    file = _LogFile(path)
    for line in earlier:
        file.write(line)
    sink = logger.add(file.write, format=_FILE_FORMAT, level="INFO")
    try:
        yield
    finally:
        logger.remove(sink)
