"""Build the loggers of a run, and close each exactly once, however the run ends."""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger, WandbLogger
from loguru import logger

from cls_train.composition.config import Node
from cls_train.composition.instantiate import build
from cls_train.errors import ConfigError

LOGGER_EXTRAS = {"MLFlowLogger": "mlflow", "WandbLogger": "wandb"}
"""Loggers that need an extra of this app. Each extra has the name of the module it installs."""


@dataclass(slots=True)
class _PostponedFinalize:
    """Replaces a logger's `finalize`, which Lightning calls before the run is evaluated."""

    finalize: Callable[[str], None]
    is_closed: bool = False

    def __call__(self, status: str) -> None:
        """Do nothing."""

    def close(self, status: str) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.finalize(status)


def build_loggers(nodes: dict[str, Node | None], folder: Path) -> list[Logger]:
    """Build the loggers that are not null. They write to the run folder.

    Raises:
        ConfigError: A logger needs a package that is not installed, or refuses its arguments.
    """
    loggers = []
    for name, node in nodes.items():
        if node:
            built: Any = _build_logger(node, f"logger.{name}", folder)
            built.finalize = _PostponedFinalize(built.finalize)
            loggers.append(built)
    return loggers


def open_loggers(loggers: Sequence[Logger]) -> None:
    """Start what a logger records to, such as a W&B run, before training does.

    Raises:
        ConfigError: A logger cannot start, for example without a network or an API key.
    """
    for each in loggers:
        try:
            _ = each.experiment  # type: ignore[attr-defined]  # a property of most loggers
        except AttributeError:
            continue
        except Exception as error:  # libraries raise many kinds of errors
            is_network_error = isinstance(error, ConnectionError | TimeoutError)
            if isinstance(error, OSError) and not is_network_error:
                raise  # such as a full disk
            raise ConfigError(f"logger: {type(each).__name__} cannot start: {error}") from error


@contextmanager
def closing_loggers(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close the loggers at the end of the block, as failed if it raises."""
    try:
        yield
    except BaseException:
        close_loggers(loggers, "failed")
        raise
    close_loggers(loggers, "success")


def close_loggers(loggers: Sequence[Logger], status: Literal["success", "failed"]) -> None:
    """Close each logger once; a second call does nothing.

    Call it after the results of the evaluation are logged, or when the run fails. An error of a
    logger is logged, because the run does not depend on it.
    """
    for each in loggers:
        finalize = each.finalize
        try:
            if isinstance(finalize, _PostponedFinalize):
                finalize.close(status)
            if isinstance(each, WandbLogger):
                _finish_wandb_run(each, status)
        except Exception as error:  # libraries raise many kinds of errors
            logger.warning("{} was not closed: {}", type(each).__name__, error)


def _finish_wandb_run(wandb_logger: Any, status: str) -> None:
    """End the W&B run. `WandbLogger` leaves it open, and the next run would join it."""
    run = wandb_logger._experiment
    is_open = run is not None and getattr(sys.modules.get("wandb"), "run", None) is run
    if is_open:
        run.finish(exit_code=0 if status == "success" else 1)


def _build_logger(node: Node, path: str, folder: Path) -> Logger:
    try:
        return build(node, path, Logger, save_dir=str(folder))  # type: ignore[type-abstract]
    except ConfigError as error:
        extra = LOGGER_EXTRAS.get(str(node.get("_target_")).rpartition(".")[2])
        if extra is not None and importlib.util.find_spec(extra) is None:
            raise ConfigError(
                f"{path}: {extra} is not installed; run: uv run --extra {extra} apps/train …"
            ) from error
        raise
