"""Run Lightning's trainer, and turn what stops it into messages that say how to go on."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from loguru import logger

from cls_callbacks import RemotePushCallback, TrainingInterrupted
from cls_data import ClassificationDataModule, LoaderWorkerError
from cls_export.contract.run_layout import RunPaths
from cls_models import ClassificationModule
from cls_train.builders import close_loggers, open_loggers
from cls_train.composition.config import RunConfig
from cls_train.distributed.ranks import (
    LostRankError,
    describe_lost_rank,
    get_ranks,
    is_lost_connection,
)
from cls_train.errors import RunFailedError
from cls_train.run_folder.write_errors import describe_os_error


def run_trainer(
    trainer: Trainer,
    module: ClassificationModule,
    data: ClassificationDataModule,
    run: RunPaths,
    checkpoint: Path | None,
) -> None:
    """Train from a checkpoint, or from the beginning.

    Raises:
        RunFailedError: The machine failed. The message names the step and how to go on.
        TrainingInterrupted: A signal stopped training after it was saved.
        KeyboardInterrupt: Ctrl-C, before the first step.
    """
    is_complete = False
    try:
        with _described_failures(run, trainer):
            open_loggers(trainer.loggers)
            trainer.fit(
                module,
                datamodule=data,
                ckpt_path=checkpoint,
                weights_only=True if checkpoint else None,
            )
        is_complete = True
    except TrainingInterrupted as interrupted:
        logger.warning(
            "{}: stopped at step {} of epoch {}; repeat the command with run.name={} to {}",
            interrupted.signal,
            trainer.global_step,
            trainer.current_epoch + 1,
            run.path.name,
            describe_start(run, trainer),
        )
        raise
    except SystemExit as stop:
        # Before the first step Lightning 2.6.6 turns Ctrl-C into exit code 1.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if not is_complete:
            close_loggers(trainer.loggers, "failed")


@contextmanager
def _described_failures(run: RunPaths, trainer: Trainer) -> Iterator[None]:
    """Turn errors of the machine into a RunFailedError that names the step and how to go on."""
    try:
        yield
    except OSError as error:
        cause = describe_os_error(error, run)
        raise _stopped(run, trainer, f"{cause}, then") from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        cause = f"out of memory ({error}). Free some memory, or make data.batch_size smaller; then"
        raise _stopped(run, trainer, cause) from error
    except RuntimeError as error:
        if get_ranks().count > 1 and is_lost_connection(error):
            raise LostRankError(describe_lost_rank(get_ranks().process.rank)) from error
        worker_error = LoaderWorkerError.from_runtime_error(error)
        if worker_error is None:
            raise
        cause = f"{worker_error}. After fixing the cause,"
        raise _stopped(run, trainer, cause) from error


def _stopped(run: RunPaths, trainer: Trainer, cause: str) -> RunFailedError:
    return RunFailedError(
        f"training stopped at step {trainer.global_step}: {cause} repeat the command with "
        f"run.name={run.path.name} to {describe_start(run, trainer)}"
    )


def describe_start(run: RunPaths, trainer: Trainer) -> str:
    """Say where the same command would start, after "to"."""
    if run.last.exists():
        return f"resume from {run.last}"
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set undeclared
    if any(isinstance(callback, RemotePushCallback) for callback in callbacks):
        return "resume from the last checkpoint in run.remote, if there is one"
    return "start from the beginning"


def check_has_best(trainer: Trainer, config: RunConfig, run: RunPaths) -> None:
    """Check that the training has selected weights.

    Raises:
        RunFailedError: It has not. The message names the reason.
    """
    if run.best.exists():
        return

    max_time = config.trainer.get("max_time")
    monitor = config.monitor.metric
    score = trainer.callback_metrics.get(monitor)
    if score is not None and math.isnan(float(score)):
        cause = f"{monitor} was never a number. Use a smaller optimizer.lr and another run.name"
    elif max_time is not None and trainer.current_epoch < (trainer.max_epochs or 0):
        cause = (
            f"trainer.max_time={max_time} ended it before the first validation. Repeat the command "
            f"with run.name={run.path.name} and a longer trainer.max_time to go on"
        )
    else:
        cause = "no validation has run. Check the trainer settings that limit epochs and batches"
    raise RunFailedError(
        f"run {run.path}: training ended at step {trainer.global_step} without a best.ckpt, "
        f"because {cause}"
    )
