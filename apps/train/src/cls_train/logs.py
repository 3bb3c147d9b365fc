"""Log lines: on the terminal, and in the run's folder."""

import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

_FORMAT = "{time:HH:mm:ss} {level: <7} {message}"
_FILE_FORMAT = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {message}"


def set_up_logs() -> None:
    """Send log lines to the terminal, and quiet what Lightning says about itself."""
    logger.remove()
    # Looked up anew for each line: Rich replaces sys.stderr while its bar is up, so that lines go above it.
    logger.add(lambda line: print(line, end="", file=sys.stderr), format=_FORMAT, level="INFO")
    threading.excepthook = _say_what_ended_a_thread
    packages = logging.getLogger("cls_models")  # which logs as libraries do
    packages.handlers = [_ToLoguru()]
    packages.setLevel(logging.INFO)
    for name, each in logging.root.manager.loggerDict.items():
        if name.startswith("cls_models") and isinstance(each, logging.Logger):
            each.disabled = False  # Hydra disables what was imported before it
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # The store is in memory and a batch is one gather: workers would only add copies.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # What a transfer freezes is to be in evaluation mode.
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
    # Lightning 2.6.6 asks torch 2.15 a question in a deprecated way.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")


def _say_what_ended_a_thread(ended: threading.ExceptHookArgs) -> None:
    """Say it in a line: of a logger, say, whose folder is gone. If the run cannot go on, its own thread says so."""
    logger.error(
        "{} ended: {}", "a thread" if ended.thread is None else ended.thread.name, ended.exc_value
    )


class _ToLoguru(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger.log(record.levelname, "{}", record.getMessage())


@contextmanager
def keep_lines() -> Iterator[list[str]]:
    """Keep what is logged while the block runs, for a file whose folder is not there yet."""
    lines: list[str] = []
    sink = logger.add(lines.append, format=_FILE_FORMAT, level="INFO")
    try:
        yield lines
    finally:
        logger.remove(sink)


@contextmanager
def log_also_to(path: Path, earlier: Sequence[str] = ()) -> Iterator[None]:
    """Append earlier lines to a file, and then those that are logged while the block runs."""
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(earlier)
    sink = logger.add(path, format=_FILE_FORMAT, level="INFO")
    try:
        yield
    finally:
        logger.remove(sink)
