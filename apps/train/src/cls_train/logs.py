"""Log lines: on the terminal, and in the run's folder."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

_FORMAT = "{time:HH:mm:ss} {level: <7} {message}"


def set_up_logs() -> None:
    """Send log lines to the terminal, and quiet what Lightning says about itself."""
    logger.remove()
    # Looked up anew for each line: Rich replaces sys.stderr while its bar is up, so that lines go above it.
    logger.add(lambda line: print(line, end="", file=sys.stderr), format=_FORMAT, level="INFO")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # The store is in memory and a batch is one gather: workers would only add copies.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Lightning 2.6.6 asks torch 2.15 a question in a deprecated way.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")


@contextmanager
def log_also_to(path: Path) -> Iterator[None]:
    """Append log lines to a file as well, while the block runs."""
    sink = logger.add(path, format="{time:YYYY-MM-DD HH:mm:ss} {level: <7} {message}", level="INFO")
    try:
        yield
    finally:
        logger.remove(sink)
